"""Optuna's dashboard on the searches of a storage: `python -m redline.dashboard [STORAGE]`."""

import argparse
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from redline.command_line import user_errors
from redline.dashboard.judged_storage import open_judged
from redline.errors import UserError

_DEFAULT = "sqlite:///mlruns/optuna.db"


class _Server(ThreadingMixIn, WSGIServer):
    """A browser keeps several connections open."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """The dashboard asks every few seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make dashboard", description=__doc__)
    parser.add_argument("storage", nargs="?", default=_DEFAULT, help=f"its URL (default: {_DEFAULT})")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    with user_errors():
        storage = open_judged(arguments.storage)
        import optuna_dashboard  # takes seconds: a mistake is told before

        try:
            server = make_server(
                arguments.host,
                arguments.port,
                optuna_dashboard.wsgi(storage),
                server_class=_Server,
                handler_class=_Quiet,
            )
        except OSError as error:
            raise UserError(f"port={arguments.port}: {error.strerror}; allowed: a free one") from error
        print(
            f"Optuna's dashboard: http://{arguments.host}:{server.server_port} (Ctrl-C ends it)", flush=True
        )
        server.serve_forever()


if __name__ == "__main__":
    main()
