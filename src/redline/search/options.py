"""What a search may be told, in one place: the plugin's schema and the Python API are made of these."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, get_type_hints

from annotated_types import Ge, Gt, Le

from redline.bounds import Count, Positive, check_value
from redline.errors import UserError

if TYPE_CHECKING:
    from redline.search.policy.state import Question


@dataclass(frozen=True)
class Options:
    """`hydra.sweeper.*`; what each means and its default is in ``conf/hydra/sweeper/max_lr.yaml``."""

    key: str
    storage: str
    workers: Annotated[int, Ge(1), Le(10_000)] | None
    seeds: Annotated[int, Ge(1), Le(1000)]
    vote: str
    doubt: Annotated[float, Gt(0), Le(1)]  # a probability
    short_run_steps: Count | None
    retries: Annotated[int, Ge(0), Le(10**9)]
    heartbeat_every: Positive  # seconds
    heartbeat_timeout: Positive
    storage_timeout: Positive
    report_timeout: Positive | None
    reference: str

    def check(self, prefix: str) -> None:
        """Raise UserError for a value out of range; ``prefix`` comes before a name in the message."""
        from redline.search.policy.verdicts import VOTES  # not at every start of a command

        for name, annotation in get_type_hints(Options, include_extras=True).items():
            check_value(f"{prefix}{name}", getattr(self, name), annotation)
        for name, holds, allowed in (
            (
                "key",
                _is_key(self.key),
                "letters, digits, _ and dots, but not seed, which a trial has beside it",
            ),
            ("vote", self.vote in VOTES, ", ".join(VOTES)),
            ("heartbeat_timeout", self.heartbeat_timeout > self.heartbeat_every, "more than heartbeat_every"),
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
