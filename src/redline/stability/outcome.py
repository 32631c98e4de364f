"""What one finished training run has to say."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Numbers of one run that ended by itself: stable, or diverged by a rule.

    Losses are in nats per token; ``val_loss`` is None where a run ended before its validation.
    A run that crashed has no outcome.
    """

    lr: float
    seed: int
    diverged: bool
    reason: str | None  # the rule that broke
    step: int  # the step (counted from 0) that broke an online rule, else the last one
    optimizer_steps: int  # what the run cost
    val_loss: float | None
    val_perplexity: float | None
    initial_loss: float
    train_loss: float
    spikes: int = 0
    run_id: str | None = None  # MLflow's, if it was known by the end
    run_key: str | None = field(default=None, compare=False)  # our name for it, a tag of MLflow's run
    seconds: float = field(default=0.0, compare=False)  # in which it trained and validated

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
