"""Takes records off an outbox and gives them to MLflow, in batches, as often as it takes."""

import time
from functools import cached_property
from itertools import dropwhile

from mlflow import MlflowClient
from mlflow.entities import Run

from redline.tracked_runs import RUN_KEY, all_runs
from redline.training.outbox.delivery import Delivery
from redline.training.outbox.folder import Outbox, Record, RunFolder, Sent
from redline.training.outbox.store import in_one_line, open_experiment, open_store

_POLL = 0.2  # seconds
_RETRY = 3.0  # seconds until a store that took nothing is asked again
_LINGER = 5.0  # seconds without a run until the sender ends: a search's next trial is soon there


class Sender:
    """The one that sends what the outbox holds; it has the outbox's lock ``sender``.

    After a failure it is not known whether the store took what it was given, so it is given again:
    for MLflow, metrics equal in key, step, time and value are one, and so are tags, parameters and artifacts.
    """

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._due: dict[str, float] = {}  # run's key -> when its next batch is to be sent
        self._active = time.monotonic()  # when something was sent or written last

    @cached_property
    def client(self) -> MlflowClient:
        """Raises where the store does not answer."""
        return open_store(self.outbox.tracking_uri)

    def run(self) -> None:
        """Send until no run is written, and all is sent or the store takes nothing for ``send_timeout``."""
        while True:
            wait = _POLL
            try:
                while self.step():
                    pass
            # Drivers, proxies and servers raise many kinds of errors; any may be temporary.
            except Exception as error:  # noqa: BLE001
                self.outbox.note_trouble(in_one_line(error))
                wait = _RETRY
            runs = self.outbox.runs()
            if any(run.is_open for run in runs):
                self._active = time.monotonic()
            if time.monotonic() - self._active > (self.outbox.send_timeout if runs else _LINGER):
                return
            time.sleep(wait)

    def step(self) -> bool:
        """Send a batch of every run that has one; whether there was one."""
        return any([self._send(run) for run in self.outbox.runs()])

    def end_forgotten(self, experiment: str) -> list[Run]:
        """Mark as KILLED what claims to run and is not written here: its machine is gone.

        Gives the experiment's runs. Raises where the store does not answer.
        """
        written = {run.key for run in self.outbox.runs()}
        runs = all_runs(self.client, experiment)
        for run in runs:
            if run.info.status == "RUNNING" and run.data.tags.get(RUN_KEY) not in written:
                self.client.set_terminated(run.info.run_id, "KILLED")
        return runs

    def _send(self, run: RunFolder) -> bool:
        is_open, sent = run.is_open, run.sent()  # in this order: what comes later is sent later
        if is_open and time.monotonic() < self._due.get(run.key, 0.0):
            return False
        records, offset = run.read(sent.offset)
        if offset == sent.offset:
            self._due[run.key] = time.monotonic() + self.outbox.send_every
            if not is_open:
                self._forget(run, sent)
            return False
        run_id, ended = sent.run_id, sent.ended
        if run_id is None:
            records = list(dropwhile(lambda record: record["kind"] != "start", records))
        if records:
            run_id, ended = run_id or self._find_or_create(run, records[0]), records[-1]["kind"] == "end"
            Delivery(self.client, run_id, run).give(records)
        run.note_sent(Sent(offset, run_id, ended))
        for record in records:
            if record["kind"] == "artifact":
                run.file(record["name"]).unlink(missing_ok=True)
        self._active = time.monotonic()
        return True

    def _forget(self, run: RunFolder, sent: Sent) -> None:
        """All is sent, and no process writes any more."""
        if sent.run_id is not None:
            if not sent.ended:  # its process was killed
                end = {"kind": "end", "status": "KILLED", "time": None}
                Delivery(self.client, sent.run_id, run).give([end])
            # A creation that was answered too late, and tried again, has left a second one.
            experiment = self.client.get_run(sent.run_id).info.experiment_id
            for twin in set(self._find(experiment, run)) - {sent.run_id}:
                self.client.delete_run(twin)
        self.outbox.remove(run)
        self._active = time.monotonic()

    def _find_or_create(self, run: RunFolder, start: Record) -> str:
        experiment = open_experiment(self.client, start["experiment"], self.outbox.artifact_location)
        if found := self._find(experiment, run):
            return found[0]
        tags = {**start["tags"], RUN_KEY: run.key}
        return self.client.create_run(experiment, start["time"], tags, start["name"]).info.run_id

    def _find(self, experiment: str, run: RunFolder) -> list[str]:
        """The ids of MLflow's runs with this key, the oldest first."""
        where = f"tags.{RUN_KEY} = '{run.key}'"
        found = self.client.search_runs([experiment], where, order_by=["attributes.start_time ASC"])
        return [its.info.run_id for its in found]
