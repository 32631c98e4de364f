"""Optuna's dashboard without a browser."""

import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna_dashboard
from optuna.storages import BaseStorage

from redline.search.store.study import VariantStudy


def served(storage: BaseStorage, study: VariantStudy) -> dict[str, Any]:
    """A study as the dashboard's own server gives it to the browser."""
    environ: dict[str, Any] = {"PATH_INFO": f"/api/studies/{study.study._study_id}"}
    setup_testing_defaults(environ)
    status: list[str] = []
    body = optuna_dashboard.wsgi(storage)(environ, lambda code, *_: status.append(code))
    assert status == ["200 OK"]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON to a browser")

    return json.loads(b"".join(body), parse_constant=refuse)
