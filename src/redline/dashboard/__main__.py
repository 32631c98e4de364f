"""`redline dashboard [STORAGE]`: Optuna's dashboard on the searches of a storage."""

from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from redline.command_line import Parser, user_errors
from redline.config import shipped
from redline.errors import UserError


class _Server(ThreadingMixIn, WSGIServer):
    """A browser keeps several connections open."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """The dashboard asks every few seconds."""


def main() -> None:
    parser = Parser(prog="redline dashboard", description=__doc__)
    storage = shipped("hydra/sweeper/max_lr").storage
    parser.add_argument("storage", nargs="?", default=storage, help="its URL (%(default)s)")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8080)
    with user_errors():
        given = parser.parse_args()
        from redline.dashboard.judged_storage import open_judged

        judged = open_judged(given.storage)
        import optuna_dashboard  # takes seconds, so mistakes are found first

        try:
            server = make_server(
                given.host,
                given.port,
                optuna_dashboard.wsgi(judged),
                server_class=_Server,
                handler_class=_Quiet,
            )
        except OSError as error:
            raise UserError(f"port={given.port}: {error.strerror}; allowed: a free one") from error
        print(f"Optuna's dashboard: http://{given.host}:{server.server_port} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
