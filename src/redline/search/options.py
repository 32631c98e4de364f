"""What a search may be told, in one place: the plugin's schema and the Python API are made of these."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redline.errors import UserError

if TYPE_CHECKING:
    from redline.search.policy.state import Question


@dataclass(frozen=True)
class Options:
    """`hydra.sweeper.*`; what each means and its default is in ``conf/hydra/sweeper/max_lr.yaml``."""

    key: str
    storage: str
    workers: int | None
    seeds: int
    vote: str
    doubt: float  # a probability
    short_run_steps: int | None
    retries: int
    heartbeat_every: float  # seconds
    heartbeat_timeout: float
    storage_timeout: float
    report_timeout: float | None
    reference: str

    def check(self, prefix: str) -> None:
        """Raise UserError for a value out of range; ``prefix`` comes before a name in the message."""
        from redline.search.policy.verdicts import VOTES  # not at every start of a command

        above_0 = "a number of seconds above 0"
        for name, holds, allowed in (
            (
                "key",
                _is_key(self.key),
                "letters, digits, _ and dots, but not seed, which a trial has beside it",
            ),
            ("workers", self.workers is None or self.workers >= 1, "1 or more, or null for the default"),
            ("seeds", 1 <= self.seeds <= 1000, "from 1 to 1000"),
            ("vote", self.vote in VOTES, ", ".join(VOTES)),
            ("doubt", 0 < self.doubt <= 1, "above 0, up to 1"),
            ("retries", self.retries >= 0, "0 or more"),
            ("heartbeat_every", 0 < self.heartbeat_every < math.inf, above_0),
            ("heartbeat_timeout", self.heartbeat_timeout > self.heartbeat_every, "more than heartbeat_every"),
            ("storage_timeout", self.storage_timeout > 0, above_0),
            ("report_timeout", self.report_timeout is None or self.report_timeout > 0, above_0 + ", or null"),
        ):
            if not holds:
                raise UserError(f"{prefix}{name}={getattr(self, name)}: allowed: {allowed}")

    def question(self, ladder: tuple[float, ...], *, short: bool = False) -> "Question":
        """What is asked of a variant; of its short runs, which need no second opinion, with ``short``."""
        from redline.search.policy.state import Question

        if short:
            return Question(ladder, 1, self.vote, doubt=1.0)
        return Question(ladder, self.seeds, self.vote, self.doubt)


def _is_key(key: str) -> bool:
    """A trial's folder and parameter are named after it."""
    return key != "seed" and key.replace(".", "_").isidentifier()
