"""Takes records off the outbox and gives them to MLflow, in batches, as often as it takes."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

from filelock import Timeout
from mlflow import MlflowClient

from redline.tracked_runs import all_runs
from redline.training.outbox.delivery import Delivery
from redline.training.outbox.spool import Outbox, Parcel, State, waiting_text, without_password
from redline.training.outbox.store import open_experiment, open_store

SETTINGS = ("outbox", "tracking_uri", "artifact_location", "send_every")
RUN_KEY = "run_key"  # the tag by which a run is found, also where its creation was not answered

_PIECE = 1 << 16  # bytes of records between two notes of how far we are: one or two batches of metrics
_POLL = 0.2  # seconds
_BACK_OFF = (0.5, 30.0)  # seconds until a store that took nothing is asked again: at first, at most


class Sender:
    """Sends what the outbox holds for one store; any number of them do so beside each other.

    After a failure it is not known whether the store took what it was given, so it is given again:
    for MLflow, metrics equal in key, step, time and value are one, and so are tags, parameters and artifacts.
    """

    def __init__(self, *, outbox: str, tracking_uri: str, artifact_location: str, send_every: float) -> None:
        """``send_every``: seconds for which metrics of a running run may wait for a batch to fill."""
        # One answer in time, or an attempt of ours later: MLflow's own retries would take minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self.outbox = Outbox(outbox)
        self.tracking_uri = tracking_uri
        self.store = without_password(tracking_uri)
        self.artifact_location = artifact_location
        self.send_every = send_every
        self.trouble: str | None = None
        self._client: MlflowClient | None = None
        self._taken_by_others = 0
        self._experiments: dict[str, str] = {}
        self._sent_at: dict[str, float] = {}  # run's key -> time.monotonic()

    @classmethod
    def of(cls, tracker: Mapping[str, Any]) -> "Sender":
        """For a tracker's part of the configuration."""
        return cls(**{key: tracker[key] for key in SETTINGS})

    def run_for_ever(self, say: Callable[[str], None] = lambda words: None) -> NoReturn:
        """Send what comes; ``say`` hears of a store that stops taking it, or begins again."""
        pause, due = _BACK_OFF[0], 0.0
        in_a_hurry: set[str] = set()
        while True:
            began, before = time.monotonic(), self.trouble
            hurried = {parcel.key for parcel in self._parcels() if parcel.is_hurried}
            # A run that waits for its end to be sent is to know at once whether the store is back.
            if began >= due or hurried - in_a_hurry:
                while self.step():
                    pass
                pause = min(2 * pause, _BACK_OFF[1]) if self.trouble else _BACK_OFF[0]
                due = time.monotonic() + pause if self.trouble else 0.0
                if (self.trouble is None) != (before is None):
                    say(self.what_waits() if self.trouble else f"{self.store}: takes metrics again")
            in_a_hurry = hurried
            # An outbox that has grown long is not to be looked through all the time.
            time.sleep(max(_POLL, 10 * (time.monotonic() - began) if self.trouble else 0.0))

    def drain(self, seconds: float) -> int:
        """Send what is there while it is being taken; gives how many runs still wait."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.step():
                if self.trouble or not self._taken_by_others:
                    break
                time.sleep(_POLL)
        return self.waiting()

    def waiting(self) -> int:
        """Runs in the outbox, but for those that go on."""
        return sum(not parcel.is_open for parcel in self._parcels())

    def try_to_open(self) -> None:
        """Make the store where there is none, which takes seconds."""
        with suppress(Exception):
            self.client()

    def step(self) -> bool:
        """Send a piece of every run that has one. False where there was none, or trouble."""
        sent, self._taken_by_others = False, 0
        for parcel in self._parcels():
            with parcel.taken() as taken:
                if not taken:
                    self._taken_by_others += 1
                    continue
                try:
                    did = self._send(parcel)
                # Drivers, proxies and servers raise what they like; all of it may pass.
                except Exception as error:  # noqa: BLE001
                    self.trouble = in_one_line(error)
                    self.outbox.note_trouble(self.store, self.trouble)
                    return False
            if did and self.trouble is not None:
                self.trouble = None
                self.outbox.note_trouble(self.store, None)
            sent |= did
        return sent

    def what_waits(self) -> str:
        """A line for the user."""
        return waiting_text(self.store, self.trouble, self.outbox)

    def retag(self, key: str, experiment: str, tags: Mapping[str, str]) -> None:
        """Put tags of a run that has ended, wherever it was, into the outbox."""
        with suppress(Timeout):  # a trial that was taken for dead; the search goes on without it
            spool = self.outbox.open(key, {"store": self.store, "experiment": experiment})
            spool.append("tags", values=dict(tags))
            spool.close()

    def run_ids(self, experiment: str) -> dict[str, str]:
        """Run's key -> MLflow's id; empty where the store does not answer."""
        try:
            return {
                run.data.tags[RUN_KEY]: run.info.run_id
                for run in all_runs(self.client(), experiment)
                if RUN_KEY in run.data.tags
            }
        except Exception as error:  # noqa: BLE001  # as in `step`
            self.trouble = in_one_line(error)
            return {}

    def experiment_id(self, experiment: str) -> str | None:
        """None where the store has no such experiment, or does not answer."""
        try:
            found = self.client().get_experiment_by_name(experiment)
        except Exception as error:  # noqa: BLE001  # as in `step`
            self.trouble = in_one_line(error)
            return None
        return None if found is None else found.experiment_id

    def end_forgotten(self, experiment: str) -> None:
        """Mark as KILLED what claims to run, of an experiment of which nothing runs: its machine is gone."""
        try:
            for run in all_runs(self.client(), experiment, "attributes.status = 'RUNNING'"):
                self.client().set_terminated(run.info.run_id, "KILLED")
        # As in `step`; whoever tidies up next finds them too.
        except Exception as error:  # noqa: BLE001
            self.trouble = in_one_line(error)

    def client(self) -> MlflowClient:
        """Raises where the store does not answer."""
        if self._client is None:
            self._client = open_store(self.tracking_uri)
        return self._client

    def _parcels(self) -> list[Parcel]:
        return self.outbox.parcels(self.store)

    def _send(self, parcel: Parcel) -> bool:
        state, is_open = parcel.state(), parcel.is_open
        left = parcel.size - state.offset
        if left == 0:
            if not is_open:
                self._forget(parcel, state)
            return not is_open
        if state.run_id is None:
            # Without one there is nothing to tag: what created it was lost with another machine.
            run_id = self._find_or_create(parcel)
            parcel.save(replace(state, run_id=run_id) if run_id else replace(state, offset=parcel.size))
            return True
        waited = time.monotonic() - self._sent_at.get(parcel.key, 0.0)
        if is_open and not parcel.is_hurried and left < _PIECE and waited < self.send_every:
            return False
        records, offset = parcel.read(state.offset, _PIECE)
        Delivery(self.client(), state.run_id, parcel.refuse).give(records, parcel.file)
        kinds = [record["kind"] for record in records if record["kind"] in ("start", "end")]
        if "end" in kinds:
            self._delete_twins(parcel, state.run_id)
        parcel.save(replace(state, offset=offset, running=kinds[-1] == "start" if kinds else state.running))
        for record in records:
            if record["kind"] == "artifact":
                parcel.file(record["name"]).unlink(missing_ok=True)
        self._sent_at[parcel.key] = time.monotonic()
        return True

    def _forget(self, parcel: Parcel, state: State) -> None:
        """All is sent, and nobody writes any more."""
        if state.running:  # its process was killed
            assert state.run_id is not None
            end = {"kind": "end", "status": "KILLED", "time": None}
            Delivery(self.client(), state.run_id, parcel.refuse).give([end], parcel.file)
            parcel.save(replace(state, running=False))
        self.outbox.remove(parcel, state.offset)

    def _find_or_create(self, parcel: Parcel) -> str | None:
        header, experiment = parcel.header, self._experiment(parcel)
        runs = self._runs(experiment, parcel.key)
        if runs or "start_time" not in header:
            return runs[0] if runs else None
        tags = {**header["tags"], RUN_KEY: parcel.key}
        run = self.client().create_run(experiment, header["start_time"], tags, header["name"])
        return run.info.run_id

    def _delete_twins(self, parcel: Parcel, run_id: str) -> None:
        """Of a creation that was not answered in time, and tried again."""
        for twin in self._runs(self._experiment(parcel), parcel.key):
            if twin != run_id:
                self.client().delete_run(twin)

    def _experiment(self, parcel: Parcel) -> str:
        name = parcel.header["experiment"]
        if name not in self._experiments:
            self._experiments[name] = open_experiment(self.client(), name, self.artifact_location)
        return self._experiments[name]

    def _runs(self, experiment: str, key: str) -> list[str]:
        found = self.client().search_runs(
            [experiment], f"tags.{RUN_KEY} = '{key}'", order_by=["attributes.start_time ASC"]
        )
        return [run.info.run_id for run in found]


def in_one_line(error: BaseException) -> str:
    """What was the matter at first, without a password: clients wrap it in pages."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    words = without_password(" ".join(str(error).split())) or type(error).__name__
    return words if len(words) < 200 else f"{words[:200]}…"
