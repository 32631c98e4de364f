"""Trials as a search judges them now, for Optuna's dashboard: Optuna closes a trial when it ends."""

from collections.abc import Container
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from redline.database import connect_arguments
from redline.errors import UserError
from redline.search.store.record import judged
from redline.search.store.study import CONSTRAINTS
from redline.secrets import without_password


class JudgedStorage(RDBStorage):
    """Changes what is read, never what is stored.

    A trial that a later one showed to be degraded reads as diverged. Once a variant has its answer, so does
    one that is stable above the edge (by luck, or outvoted by the other seeds). So the best trial is the
    largest stable value.
    """

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, deepcopy, states)
        attributes = self.get_study_user_attrs(study_id)
        if "facts" not in attributes:  # not a study of ours, or not complete yet
            return trials
        edge = (attributes.get("result") or {}).get("first_diverged_lr")
        verdicts = judged(attributes, trials)
        for trial in trials:
            if trial.number not in verdicts:
                continue
            reason = verdicts[trial.number]
            if reason is not None:
                trial.user_attrs |= {"verdict": "diverged", "reason": reason}
            elif edge is None or trial.params[attributes["key"]] < edge:
                continue
            trial.values = [0.0]
            trial.system_attrs = {**trial.system_attrs, CONSTRAINTS: [1.0]}
        return trials

    get_best_trial = BaseStorage.get_best_trial  # of `get_all_trials`, where RDBStorage asks the database


def open_judged(url: str) -> JudgedStorage:
    """The storage at ``url``. Raises UserError where there is none with a search."""
    try:
        parsed = make_url(url)
        file = (parsed.database or "").removeprefix("file:")
        if parsed.get_backend_name() == "sqlite" and not Path(file).is_file():
            raise UserError(
                f"storage={without_password(url)}: no such file; "
                "allowed: the storage of a search that has begun"
            )
        return JudgedStorage(
            parsed.render_as_string(hide_password=False),
            {"connect_args": connect_arguments(parsed), "pool_pre_ping": True},
            skip_table_creation=True,
        )
    # Without the driver's message, which may contain the password.
    except (ArgumentError, SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as error:
        raise UserError(
            f"storage: does not open ({type(error).__name__}); "
            "allowed: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE of a search that has begun"
        ) from error
