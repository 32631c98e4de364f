"""What a search has done before its first trial and after its last one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from redline.errors import UserError
from redline.search.console.display import Display
from redline.search.coordinator import Coordinator
from redline.search.variant import Variant
from redline.search.workers.pool import Ended, Pool

JOBS = "redline.training.jobs"  # by name: importing it would import torch


@dataclass(frozen=True)
class Housekeeping:
    """Jobs beside the trials, each run on the first slot and waited for; one that crashes is tried again."""

    pool: Pool
    directory: Path
    display: Display
    retries: int

    def prepare(self, variants: Sequence[Variant]) -> dict[str, str]:
        """Find what is wrong with the variants, make their tokens; gives each one's precision."""
        cfgs = {variant.name: variant.cfg for variant in variants}
        return self._run("prepare", {"cfgs": cfgs})["precision"]

    @contextmanager
    def sending(self, tracker: DictConfig) -> Iterator[None]:
        """Keep a process beside the trials that sends what they leave in the tracker's outbox."""
        if not _has_outbox(tracker):
            yield
            return
        self.pool.keep(f"{JOBS}:send", {"tracker": tracker}, self.directory / "send.log", self._hear)
        try:
            yield
        except BaseException:
            # Whoever stopped us is waiting, and the outbox keeps what is left.
            self.pool.release(patience=0.0)
            raise
        self.pool.release()

    def tidy(self, coordinator: Coordinator, tracker: DictConfig) -> str | None:
        """Send what is left, and make the tracker agree with the search's verdicts.

        Gives the id of the search's experiment in MLflow, where that is known.
        """
        if not _has_outbox(tracker):
            return None
        payload = {
            "tracker": tracker,
            "experiment": coordinator.settings.name,
            "verdicts": coordinator.late_verdicts(),
        }
        found = self._run("tidy", payload)
        coordinator.link_runs(found["run_ids"])
        return found["experiment_id"]

    def _hear(self, message: dict[str, Any]) -> None:
        self.display.say(message["doing"])

    def _run(self, job: str, payload: dict[str, Any]) -> dict[str, Any]:
        log = self.directory / f"{job}.log"
        for retries_left in reversed(range(self.retries + 1)):
            ended = self._once(job, payload, log)
            if ended.user_error is not None:
                raise UserError(ended.user_error)
            if ended.result is not None:
                return ended.result
            if retries_left:
                self.display.say(f"{job}: crashed ({ended.crash}), tried again; its log is in {log}")
        raise RuntimeError(f"{job} failed ({ended.crash}); its log is in {log}")

    def _once(self, job: str, payload: dict[str, Any], log: Path) -> Ended:
        slot = self.pool.slots[0]
        self.pool.start(slot, f"{JOBS}:{job}", payload, log)
        try:
            while True:
                for _, message in self.pool.poll(0.5):
                    if isinstance(message, Ended):
                        return message
                    self._hear(message)
        finally:
            self.pool.stop(slot)


def _has_outbox(tracker: DictConfig) -> bool:
    return any("outbox" in spec for spec in tracker.values())
