"""`redline dashboard [STORAGE]`: Optuna's dashboard on the searches of a storage."""

import os
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from redline.command_line import Parser, begin_command, port, user_errors
from redline.config import shipped
from redline.errors import UserError
from redline.hosts import is_ours
from redline.secrets import without_password

_STORAGE = "REDLINE_STORAGE"  # an argument could be read by everybody on the machine
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    """A browser keeps several connections open."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """The dashboard asks every few seconds."""


def only_ours(application: Application, host: str) -> Application:
    """``application`` for those who ask for it by a name of this machine."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if is_ours(environ.get("HTTP_HOST", ""), host):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"not a name of this server\n"]

    return answer


def main() -> None:
    parser = Parser(prog="redline dashboard", description=__doc__)
    storage = os.environ.get(_STORAGE) or shipped("hydra/sweeper/max_lr").storage
    shown = without_password(storage).replace("%", "%%")
    parser.add_argument("storage", nargs="?", default=storage, help=f"its URL ({shown}); or in {_STORAGE}")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=port, default=8080)
    with user_errors():
        given = parser.parse_args()
        from redline.dashboard.storage import open_begun

        storage = open_begun(given.storage)
        import optuna_dashboard  # takes seconds, so mistakes are found first

        try:
            server = make_server(
                given.host,
                given.port,
                only_ours(optuna_dashboard.wsgi(storage), given.host),
                server_class=_Server,
                handler_class=_Quiet,
            )
        except OSError as error:
            raise UserError(f"port={given.port}: {error.strerror}; allowed: a free one") from error
        print(f"Optuna's dashboard: http://{given.host}:{server.server_port} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    begin_command()
    main()
