"""What a search has done before its first trial and after its last one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.errors import UserError
from redline.search.coordinator import Coordinator
from redline.search.display import Display
from redline.search.pool import Ended, Pool
from redline.search.variant import Variant

JOBS = "redline.training.jobs"  # by name: importing it would import torch


@dataclass(frozen=True)
class Housekeeping:
    """Jobs beside the trials, each run on the first slot and waited for; one that crashes is tried again."""

    pool: Pool
    directory: Path
    display: Display
    retries: int

    def prepare(self, variants: Sequence[Variant], experiment: str) -> dict[str, str]:
        """Find what is wrong with the variants, make tokens and stores; gives each one's precision."""
        payload = {"cfgs": {variant.name: variant.cfg for variant in variants}, "experiment": experiment}
        return self._run("prepare", payload)["precision"]

    def tidy(self, coordinator: Coordinator, tracking_uri: str | None) -> None:
        """Make the tracker agree with the search's verdicts."""
        if tracking_uri is not None:
            payload = {
                "tracking_uri": tracking_uri,
                "experiment": coordinator.settings.name,
                "verdicts": coordinator.late_verdicts(),
            }
            self._run("tidy", payload)

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
                    self.display.say(message["doing"])
        finally:
            self.pool.stop(slot)
