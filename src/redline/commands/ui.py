"""`redline ui`: MLflow's UI on what was tracked."""

import os
import sys

from redline.command_line import Parser
from redline.config import shipped


def ui() -> None:
    """Replace this process by MLflow's server."""
    parser = Parser(prog="redline ui", description=__doc__)
    uri = shipped("tracker/mlflow").tracking_uri
    parser.add_argument("--tracking-uri", default=uri, help="a database's URL (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args()
    # MLflow's jobs evaluate language models; they would start processes that nothing here uses.
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    words = ["ui", "--workers", "1", "--host", given.host, "--port", str(given.port)]
    words += ["--backend-store-uri", given.tracking_uri]
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *words], {**os.environ, **quiet})
