"""Makes runs in MLflow what the outbox says. Doing so twice has the same effect as once."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from redline.database import first_opening, make_whole
from redline.secrets import without_password
from redline.tracked_runs import RUN_KEY, all_runs
from redline.training.outbox import BATCH, Outbox, RunFolder, RunState, is_held

_POLL = 0.2  # seconds
_RETRY = 3.0  # seconds until a store that took nothing is asked again
_LINGER = 5.0  # seconds without a run until the sender ends: a search's next trial is soon there
_AT_MOST = {"metrics": 1000, "params": 100, "tags": 100}  # what MLflow takes in one call
# MLflow's codes for what it will never take. Other errors may be temporary.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}


@dataclass
class _Sent:
    """What this sender has sent of a run."""

    run_id: str  # MLflow's
    offset: int = 0  # bytes of the metrics
    state: RunState | None = None
    due: float = 0.0  # when it is looked at again while it is written


class Sender:
    """The one that sends what the outbox holds; it has the outbox's lock ``sender``.

    What a killed sender sent, and what the store may have taken though it failed, is sent again:
    for MLflow, metrics equal in key, step, time and value are one, and so are tags, parameters and artifacts.
    """

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._sent: dict[str, _Sent] = {}  # by the run's key
        self._active = time.monotonic()  # when a run was written or sent last

    @cached_property
    def client(self) -> MlflowClient:
        """Raises where the store does not answer."""
        return open_store(self.outbox.tracking_uri)

    def run(self) -> None:
        """Send until no run is written, and all is sent or the store takes nothing for ``send_timeout``."""
        while True:
            wait = _POLL
            try:
                self.step()
            # Drivers, proxies and servers raise many kinds of errors; any may be temporary.
            except Exception as error:  # noqa: BLE001
                self.outbox.note_trouble(in_one_line(error))
                wait = _RETRY
            runs = self.outbox.runs()
            if any(is_held(run.writing) for run in runs):
                self._active = time.monotonic()
            if time.monotonic() - self._active > (self.outbox.send_timeout if runs else _LINGER):
                return
            time.sleep(wait)

    def step(self) -> None:
        """Send a batch of every run that is due."""
        for run in self.outbox.runs():
            is_open = is_held(run.writing)  # asked first: what is written later is sent later
            sent = self._sent.get(run.key)
            if not is_open or sent is None or time.monotonic() > sent.due:
                self._send(run, is_open)
                self._active = time.monotonic()

    def _send(self, run: RunFolder, is_open: bool) -> None:
        state = run.state()
        assert state is not None
        if run.key not in self._sent:
            self._sent[run.key] = _Sent(self._find_or_create(state))
        sent = self._sent[run.key]
        (run.path / "run_id").write_text(sent.run_id)
        entries, offset = run.metrics(sent.offset)
        values = [(key, value, at, step) for step, at, its in entries for key, value in its.items()]
        self._log(run, "metrics", [Metric(*value) for value in values])
        is_all, sent.offset = offset - sent.offset < BATCH, offset
        for path in sorted(run.files.rglob("*.*")):
            if path.suffix != ".tmp":  # else it is not whole
                folder = None if path.parent == run.files else str(path.parent.relative_to(run.files))
                self._give(run, path.name, self.client.log_artifact, str(path), folder)
                path.unlink()
        if not is_all:
            return
        sent.due = time.monotonic() + self.outbox.send_every
        killed = state.status == "RUNNING" and not is_open
        self._give_state(run, replace(state, status="KILLED") if killed else state)
        if not is_open:
            # A creation that was answered too late, and tried again, has left a second one.
            for twin in self._find(state):
                if twin != sent.run_id:
                    self.client.delete_run(twin)
            self.outbox.remove(run, state, offset)
            del self._sent[run.key]

    def _find_or_create(self, state: RunState) -> str:
        if runs := self._find(state):
            return runs[0]
        found = self.client.get_experiment_by_name(state.experiment)
        # A server has a place for artifacts.
        place = None if self.client.tracking_uri.startswith("http") else self.outbox.artifact_location
        experiment = found.experiment_id if found else self.client.create_experiment(state.experiment, place)
        return self.client.create_run(experiment, state.began, dict(state.tags), state.name).info.run_id

    def _find(self, state: RunState) -> list[str]:
        """The ids of MLflow's runs with this key."""
        where = f"tags.{RUN_KEY} = '{state.tags[RUN_KEY]}'"
        return [its.info.run_id for its in all_runs(self.client, state.experiment, where)]

    def _give_state(self, run: RunFolder, state: RunState) -> None:
        """A resumed run keeps the parameters it began with, which MLflow does not let one change; each that
        is different now is a tag ``changed/<parameter>``.
        """
        sent = self._sent[run.key]
        if state == sent.state:
            return
        before = self.client.get_run(sent.run_id).data.params
        changed = {key: value for key, value in state.params.items() if before.get(key, value) != value}
        tags = {**state.tags, **{f"changed/{key}": value for key, value in changed.items()}}
        self._log(run, "params", [Param(*its) for its in state.params.items() if its[0] not in before])
        self._log(run, "tags", [RunTag(*its) for its in tags.items()])
        if state.status == "RUNNING":  # for MLflow, a run that is resumed had ended
            self._give(run, "start", self.client.update_run, state.status)
        else:
            self._give(run, "end", self.client.set_terminated, state.status, state.ended)
        sent.state = state

    def _log(self, run: RunFolder, kind: str, items: list[Any]) -> None:
        """One by one where one of them is refused."""
        for start in range(0, len(items), _AT_MOST[kind]):
            batch = items[start : start + _AT_MOST[kind]]
            if not self._give(run, None, self.client.log_batch, **{kind: batch}):
                for its in batch:
                    what = f"{kind}: {its.key} at step {getattr(its, 'step', None)}"
                    self._give(run, what, self.client.log_batch, **{kind: [its]})

    def _give(
        self, run: RunFolder, what: str | None, call: Callable[..., Any], *told: Any, **more: Any
    ) -> bool:
        """Whether MLflow takes it. ``what`` is noted where it never will, and left out."""
        try:
            call(self._sent[run.key].run_id, *told, **more)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            if what is not None:
                with (self.outbox.folder / "refused.txt").open("a") as file:
                    file.write(f"{run.key}: {what}: {in_one_line(error)}\n")
            return False
        return True


def open_store(tracking_uri: str) -> MlflowClient:
    """A client of the store, whose tables are there. Raises whatever the driver does where it is not."""
    # We retry ourselves: MLflow's own retries would take minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    if not tracking_uri.startswith("http"):
        with first_opening(tracking_uri):
            make_whole(tracking_uri, lambda uri: MlflowClient(uri).search_experiments(max_results=1))
            MlflowClient(tracking_uri).search_experiments(max_results=1)
    return MlflowClient(tracking_uri)


def in_one_line(error: BaseException) -> str:
    """The first error's message, without a password: clients wrap it in long ones."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    words = without_password(" ".join(str(error).split())) or type(error).__name__
    return words if len(words) < 200 else f"{words[:200]}…"
