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
    """Jobs beside the trials, each run on the first slot and waited for."""

    pool: Pool
    directory: Path
    display: Display

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
        slot, log = self.pool.slots[0], self.directory / f"{job}.log"
        self.pool.start(slot, f"{JOBS}:{job}", payload, log)
        try:
            while True:
                for _, message in self.pool.poll(0.5):
                    if not isinstance(message, Ended):
                        self.display.say(message["doing"])
                    elif message.user_error is not None:
                        raise UserError(message.user_error)
                    elif message.crash is not None:
                        raise RuntimeError(f"{job} failed ({message.crash}); its log is in {log}")
                    else:
                        assert message.result is not None
                        return message.result
        finally:
            self.pool.stop(slot)
