"""What a search has done at its end, in a process of its own: the report, and its copy in MLflow."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from redline.report.load import read_search
from redline.report.page import write_report
from redline.report.stores import Stores
from redline.report.summary import publish_summary


def publish(payload: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Write the report beside ``result.json``, and the search's summary run where the search is tracked.

    Payload: ``search``, ``storage``, ``tracking_uri`` (None: not tracked), ``directory``, ``reference``.
    Result: ``path``; ``trouble``, why MLflow has no copy, or None.
    """
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    directory, tracking_uri = Path(payload["directory"]), payload["tracking_uri"]
    stores = Stores(payload["storage"], tracking_uri, directory.parent)
    search = read_search(stores, payload["search"], directory)
    path = write_report(search, directory / "report", payload["reference"])
    result = {"path": str(path), "trouble": None}
    if tracking_uri is None or search.curves.trouble is not None:
        return {**result, "trouble": tracking_uri and search.curves.trouble}
    artifacts = [directory / "result.json", path, *sorted(path.parent.glob("*.png"))]
    try:
        publish_summary(search, tracking_uri, artifacts)
    except (MlflowException, SQLAlchemyError, LookupError, OSError) as error:
        return {**result, "trouble": str(error).strip().partition("\n")[0]}
    return result
