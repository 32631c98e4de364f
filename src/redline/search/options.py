"""What a search may be told, in one place: the plugin's schema and the Python API are made of these."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from redline.bounds import Count, Positive, check_value
from redline.errors import UserError

if TYPE_CHECKING:
    from redline.search.policy.question import Question

CRITERIA = ("useful", "stable", "both")


@dataclass(frozen=True)
class Options:
    """`hydra.sweeper.*`; what each means and its default is in ``conf/hydra/sweeper/max_lr.yaml``."""

    key: str
    storage: str
    workers: Annotated[int, Ge(1), Le(10_000)] | None
    seeds: Annotated[int, Ge(1), Le(1000)]
    criterion: str
    lost_share: Annotated[float, Gt(0), Lt(1)]
    resolution: Annotated[float, Gt(1), Le(10**6)]
    settled: Annotated[float, Ge(1), Le(10**6)]
    budget: Positive | None
    claim: Positive | None
    extend: bool
    min: Positive | None
    max: Positive | None
    cut: Annotated[float, Ge(0), Lt(1)]  # a probability
    short_run_steps: Count | None
    retries: Annotated[int, Ge(0), Le(10**9)]
    heartbeat_every: Positive  # seconds
    heartbeat_timeout: Positive
    storage_timeout: Positive
    grace_period: Positive
    report_timeout: Positive | None
    reference: str
    prior: Any  # of the curve; see `policy.prior.Prior`

    def check(self, prefix: str) -> None:
        """Raise UserError for a value out of range; ``prefix`` comes before a name in the message."""
        from redline.search.policy.prior import read_prior  # not at every start of a command

        for name, annotation in get_type_hints(Options, include_extras=True).items():
            if name != "prior":
                check_value(f"{prefix}{name}", getattr(self, name), annotation)
        read_prior(self.prior, f"{prefix}prior")
        for name, holds, allowed in (
            (
                "key",
                _is_key(self.key),
                "letters, digits, _ and dots, but not seed, which a trial has beside it",
            ),
            ("criterion", self.criterion in CRITERIA, ", ".join(CRITERIA)),
            ("heartbeat_timeout", self.heartbeat_timeout > self.heartbeat_every, "more than heartbeat_every"),
            ("max", None in (self.min, self.max) or self.min < self.max, "more than min"),  # type: ignore[operator]
        ):
            if not holds:
                raise UserError(f"{prefix}{name}={getattr(self, name)}: allowed: {allowed}")

    def question(self, ladder: tuple[float, ...], *, short: bool = False) -> "Question":
        """What is asked of a variant; of its short runs, which only look first, with ``short``."""
        from redline.search.policy.prior import read_prior
        from redline.search.policy.question import Question

        return Question(
            ladder,
            seeds=1 if short else self.seeds,
            criterion=self.criterion,
            lost_share=self.lost_share,
            resolution=max(self.resolution, _SHORT_RESOLUTION) if short else self.resolution,
            settled=max(self.settled, _SHORT_SETTLED) if short else self.settled,
            budget=None if short else self.budget,
            extend=self.extend and not short,
            low=self.min,
            high=self.max,
            prior=read_prior(self.prior, "prior"),
        )


_SHORT_RESOLUTION, _SHORT_SETTLED = 3.0, 1.2  # short runs say where to begin, no more


def _is_key(key: str) -> bool:
    """A trial's folder and parameter are named after it."""
    return key != "seed" and key.replace(".", "_").isidentifier()
