"""`redline ui`: MLflow's UI on what was tracked."""

import os
import socket
import sys

from redline.command_line import Parser, port
from redline.config import shipped
from redline.errors import UserError
from redline.hosts import host_names
from redline.secrets import without_password
from redline.stores import check_database

_HOSTS = "MLFLOW_SERVER_ALLOWED_HOSTS"  # patterns
_STORE = "MLFLOW_BACKEND_STORE_URI"  # MLflow's own; an argument could be read by everybody on the machine


def ui() -> None:
    """Replace this process by MLflow's server. It answers only who asks for it by a name of this machine."""
    parser = Parser(prog="redline ui", description=__doc__)
    uri = os.environ.get(_STORE) or shipped("tracker/mlflow").tracking_uri
    shown = without_password(uri).replace("%", "%%")
    parser.add_argument("--tracking-uri", default=uri, help=f"a database's URL ({shown}); or in {_STORE}")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=port, default=5000)
    given = parser.parse_args()
    check_database(given.tracking_uri, "--tracking-uri")
    try:
        socket.create_server((given.host, given.port)).close()
    except OSError as error:
        what = f"--host={given.host} --port={given.port}"
        raise UserError(
            f"{what}: {error.strerror}; allowed: an address of this machine, and a free port"
        ) from error
    # MLflow's jobs evaluate language models; they would start processes that nothing here uses.
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    hosts = [name for its in host_names(given.host) for name in (its, f"{its}:*")]
    words = ["ui", "--workers", "1", "--host", given.host, "--port", str(given.port)]
    # MLflow's own list lets in names that only begin like an address.
    allowed = {_HOSTS: ",".join(hosts).replace("[", "[[]")}
    environment = {**allowed, **os.environ, **quiet, _STORE: given.tracking_uri}
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *words], environment)
