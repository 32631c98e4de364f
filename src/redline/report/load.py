"""From the stores to a `Search`."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage
from sqlalchemy import make_url

from redline.config import shipped
from redline.errors import UserError
from redline.report.curves import Curves
from redline.report.search import Run, Search, Variant
from redline.search.request import check_name
from redline.search.store.record import RecordedVariant, read_searches
from redline.search.store.storage import check_storage, open_storage
from redline.secrets import without_password

_TIMEOUT = 10.0  # seconds that a storage which goes away is waited for
_NAMED = 10  # searches that an error names


def load_search(
    name: str | None = None,
    *,
    storage: str | None = None,
    tracking_uri: str | None = None,
    prefix: str = "",
) -> Search:
    """The search ``name``, or the latest one, finished or not; curves are read when they are asked for.

    ``storage`` (Optuna's) and ``tracking_uri`` (MLflow's; ``none`` for no curves) are by default where the
    configuration puts them. Raises UserError for an unknown name or storage; ``prefix`` comes before an
    argument's name in the message.
    """
    uri = tracking_uri or shipped("tracker/mlflow").tracking_uri
    tracking_uris = [] if uri == "none" else [uri]
    return search_in(
        storage or shipped("hydra/sweeper/max_lr").storage, tracking_uris, name, f"{prefix}storage"
    )


def search_in(
    storage: str, tracking_uris: Sequence[str], name: str | None = None, key: str = "storage"
) -> Search:
    """As `load_search`, with any number of MLflow's stores; ``key``: what the user calls the storage."""
    named = f"{key}={without_password(storage)}"
    known = read_searches(_open(storage, key, named))
    variants = known[_choose(name, known, named)]
    its = variants[0]
    check_name("search", its.search)  # as the store has it: the report's folder is named after it
    curves = Curves(its.search, tracking_uris)
    shown = tuple(_variant(variant, curves) for variant in variants)
    return Search(its.search, its.ladder, its.seeds, its.key, its.label, its.asked, shown, curves)


def _open(url: str, key: str, named: str) -> BaseStorage:
    if url.startswith("sqlite:"):
        file = make_url(url).database
        # Opening it would make it.
        if file is None or not Path(file.removeprefix("file:")).is_file():
            raise UserError(f"{named}: not there; allowed: the storage of a search that was run")
    check_storage(url, key)
    return open_storage(url, _TIMEOUT, key)


def _choose(name: str | None, known: Mapping[str, Any], named: str) -> str:
    names = list(known)
    if not names:
        raise UserError(f"{named}: holds no search; allowed: the storage of a search that was run")
    if name is None:
        return names[-1]
    if name not in known:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        latest = ", ".join(names[: -_NAMED - 1 : -1])
        more = f" and {len(names) - _NAMED} older ones" if len(names) > _NAMED else ""
        raise UserError(f"search={name}: unknown{hint}; allowed: {latest}{more}")
    return name


def _variant(recorded: RecordedVariant, curves: Curves) -> Variant:
    return Variant(recorded.name, recorded.facts, _runs(recorded, curves), recorded.result)


_RANK = {"stable": 0, "diverged": 0, "cut": 1, "running": 2, "crashed": 3}


def _runs(recorded: RecordedVariant, curves: Curves) -> tuple[Run, ...]:
    """One run a point, the first of its kind: ended by itself, before cut, running, and crashed."""
    shown = [trial for trial in recorded.trials if trial.state in _RANK]
    chosen: dict[tuple[float, int], Run] = {}
    for trial in sorted(shown, key=lambda trial: (_RANK[trial.state], trial.number)):
        run = Run(**vars(trial), variant=recorded.name, curves=curves)
        chosen.setdefault((trial.value, trial.seed), run)
    return tuple(chosen[point] for point in sorted(chosen))
