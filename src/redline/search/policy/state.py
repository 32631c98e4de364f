"""One variant's search at a moment, and what follows from it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

from redline.search.policy.bisection import next_point
from redline.search.policy.losses import mean_losses
from redline.search.policy.references import references
from redline.search.policy.speculation import Plan, Policy, plan, runs_to_go
from redline.search.policy.verdicts import Bracket, Point, Verdicts, Vote, bracket, reasons, rung_verdicts
from redline.stability import Outcome, SearchRule


@dataclass(frozen=True)
class Question:
    """What a search asks of each variant."""

    ladder: Sequence[float]  # smallest first
    seeds: int
    vote: Vote
    doubt: float  # a probability; see `references`

    def policy(
        self, given_up: Collection[Point] = (), hint: Bracket | None = None, anchors: Sequence[int] = ()
    ) -> Policy:
        return partial(
            next_point,
            rungs=len(self.ladder),
            seeds=self.seeds,
            vote=self.vote,
            given_up=given_up,
            hint=hint,
            anchors=anchors,
        )

    def rung_verdicts(self, verdicts: Verdicts) -> list[bool | None]:
        return rung_verdicts(verdicts, len(self.ladder), self.seeds, self.vote)


@dataclass(frozen=True)
class Look:
    """See `look`."""

    outcomes: Mapping[Point, Outcome]
    running: Mapping[Point, Any]
    verdicts: Verdicts
    given_up: Collection[Point]
    ends: Bracket
    plan: Plan
    policy: Policy
    waiting: bool  # for its scouts, with all but its lowest rung

    @property
    def answered(self) -> bool:
        return self.plan.needed is None

    @cached_property
    def runs_left(self) -> int:
        """About how many further runs the answer needs: if seeds agree and rule 5 leaves no doubt."""
        edge = (self.ends.stable + 1 + self.ends.diverged) // 2
        return max(runs_to_go(self.policy, self.verdicts, edge), int(not self.answered))

    def moot(self, point: Point) -> bool:
        """True where a run can no longer change the verdict: its LR or a smaller one has diverged by vote,
        and a run has shown it.
        """
        shown = any(reason and its.rung == self.ends.diverged for its, reason in self.verdicts.items())
        return point.rung >= self.ends.diverged + (not shown)


def look(
    question: Question,
    rules: Mapping[str, SearchRule],
    outcomes: Mapping[Point, Outcome],
    running: Mapping[Point, Any] = MappingProxyType({}),
    given_up: Collection[Point] = (),
    *,
    scout: "Look | None" = None,
    spares: int = 0,
) -> Look:
    """The verdicts of ``outcomes``, and what to run next: a pure function.

    Where rule 5 leaves a seed's bracket in doubt, what could still move it is run too. ``scout`` is the same
    variant's search by short runs: where it found the edge, this one begins; until then, only the lowest
    rung is asked for. ``spares`` is how many runs to name beside the one that is needed.
    """
    verdicts = reasons(outcomes, rules)
    hint = scout.ends if scout and scout.answered else None
    policy = question.policy(given_up, hint, list(mean_losses(outcomes)))
    ends = bracket(question.rung_verdicts(verdicts))
    ahead = plan(policy, verdicts, running, spares)
    begun = {point.seed for point in outcomes}
    if begun and (ahead.needed is None or ahead.needed.seed not in begun):
        # Before a further seed begins, and at the end.
        doubted = references(
            outcomes,
            rules,
            ladder=question.ladder,
            seeds=question.seeds if ahead.needed is None else max(begun) + 1,
            vote=question.vote,
            doubt=question.doubt,
            given_up=given_up,
        )
        if doubted:
            later = [*doubted[1:], *([ahead.needed] if ahead.needed else []), *ahead.spares]
            ahead = Plan(doubted[0], tuple(point for point in later if point not in running)[:spares])
    waiting = scout is not None and not scout.answered
    seen = Look(outcomes, running, verdicts, given_up, ends, ahead, policy, waiting)
    # What is moot as things stand would be cancelled as soon as it is started.
    return replace(seen, plan=Plan(ahead.needed, tuple(its for its in ahead.spares if not seen.moot(its))))


def wanted(looks: Mapping[str, Look]) -> list[tuple[str, Point]]:
    """What free workers should run, over all variants: first what an answer hangs on, of the variant that
    fewest work on; then the spares, each variant's best one first.
    """
    ranked = []
    for name, seen in looks.items():
        needed = [] if seen.plan.needed is None else [seen.plan.needed]
        for rank, point in enumerate([*needed, *seen.plan.spares], start=0 if needed else 1):
            if point not in seen.running and not (seen.waiting and point.rung > 0):
                ranked.append((rank, len(seen.running), name, point))
    return [(name, point) for _, _, name, point in sorted(ranked, key=lambda entry: entry[:2])]
