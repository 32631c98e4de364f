"""One variant's search at a moment, and what follows from it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

from redline.search.policy.bisection import next_point
from redline.search.policy.references import references
from redline.search.policy.speculation import Plan, Policy, plan, runs_to_go
from redline.search.policy.verdicts import (
    Bracket,
    Point,
    Verdicts,
    bracket,
    mean_losses,
    reasons,
    rung_verdicts,
)
from redline.stability import Outcome, SearchRule


@dataclass(frozen=True)
class Question:
    """What a search asks of each variant."""

    ladder: tuple[float, ...]  # smallest first
    seeds: int
    vote: str
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
class SearchState:
    """See `search_state`."""

    question: Question
    outcomes: Mapping[Point, Outcome]
    running: Mapping[Point, Any]
    verdicts: Verdicts
    given_up: Collection[Point]
    ends: Bracket
    plan: Plan
    policy: Policy
    waiting: bool  # for its short runs, with all but its lowest rung

    @property
    def answered(self) -> bool:
        return self.plan.needed is None

    @cached_property
    def runs_left(self) -> int:
        """About how many further runs the answer needs: if seeds agree and nothing is in doubt."""
        edge = (self.ends.stable + 1 + self.ends.diverged) // 2
        return max(runs_to_go(self.policy, self.verdicts, edge), int(not self.answered))

    def unneeded(self, point: Point) -> bool:
        """True where a run can no longer change the verdict: its value or a smaller one has diverged by vote,
        and a run has shown it.
        """
        shown = any(reason and its.rung == self.ends.diverged for its, reason in self.verdicts.items())
        return point.rung >= self.ends.diverged + (not shown)


def search_state(
    question: Question,
    rules: Mapping[str, SearchRule],
    outcomes: Mapping[Point, Outcome],
    running: Mapping[Point, Any] = MappingProxyType({}),
    given_up: Collection[Point] = (),
    *,
    short_runs: SearchState | None = None,
    speculative: int = 0,
) -> SearchState:
    """The verdicts of ``outcomes``, and what to run next: a pure function.

    Where a rule that compares with smaller values leaves a seed's bracket in doubt, the runs that could still
    move it are run too. ``short_runs`` is the same variant's search by short runs: where it found the edge,
    this one begins; until then, only the lowest rung is asked for. ``speculative`` is how many runs to name
    beside the one that is needed.
    """
    verdicts = reasons(outcomes, rules)
    hint = short_runs.ends if short_runs and short_runs.answered else None
    policy = question.policy(given_up, hint, list(mean_losses(outcomes)))
    ends = bracket(question.rung_verdicts(verdicts))
    ahead = plan(policy, verdicts, running, speculative)
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
            later = [*doubted[1:], *([ahead.needed] if ahead.needed else []), *ahead.speculative]
            ahead = Plan(doubted[0], tuple(point for point in later if point not in running)[:speculative])
    waiting = short_runs is not None and not short_runs.answered
    state = SearchState(question, outcomes, running, verdicts, given_up, ends, ahead, policy, waiting)
    # A speculative run that is unneeded now would be cancelled as soon as it is started.
    return replace(
        state, plan=Plan(ahead.needed, tuple(its for its in ahead.speculative if not state.unneeded(its)))
    )


def wanted(states: Mapping[str, SearchState]) -> list[tuple[str, Point]]:
    """What free workers should run, over all variants: first the required runs, of the variant that fewest
    work on; then the speculative ones, each variant's likeliest first.
    """
    ranked = []
    for name, state in states.items():
        needed = [] if state.plan.needed is None else [state.plan.needed]
        for rank, point in enumerate([*needed, *state.plan.speculative], start=0 if needed else 1):
            if point not in state.running and not (state.waiting and point.rung > 0):
                ranked.append((rank, len(state.running), name, point))
    return [(name, point) for _, _, name, point in sorted(ranked, key=lambda entry: entry[:2])]
