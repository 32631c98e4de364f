"""What holds for the whole of a search."""

from dataclasses import dataclass
from pathlib import Path

from redline.search.policy.state import Question
from redline.search.policy.verdicts import Vote


@dataclass(frozen=True)
class Settings:
    name: str
    directory: Path
    ladder: list[float]
    seeds: int
    vote: Vote
    doubt: float  # a probability
    scout_steps: int | None  # length of the short runs that look first; None: no such runs
    retries: int
    beat_every: float  # seconds
    patience: float  # seconds of silence after which another machine's trial is lost
    trial_job: str  # `module:function` that trains a point
    threads: int | None

    def question(self, *, scouting: bool = False) -> Question:
        """Of a variant, or of its scouts: those need no second opinion."""
        if scouting:
            return Question(self.ladder, 1, self.vote, doubt=1.0)
        return Question(self.ladder, self.seeds, self.vote, self.doubt)
