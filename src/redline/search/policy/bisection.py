"""Which run to ask for next: a pure function of the verdicts so far.

Every seed bisects the ladder for its own edge, but runs only where it can still change the vote: the first
seed looks for the edge, the others check whether theirs is the same.
"""

from collections.abc import Collection, Iterator, Sequence

from redline.search.policy.verdicts import (
    Bracket,
    Point,
    Verdicts,
    bracket,
    own_vote,
    rung_votes,
    tally,
)


def next_point(
    verdicts: Verdicts,
    *,
    rungs: int,
    seeds: int,
    vote: str,
    given_up: Collection[Point] = (),
    hint: Bracket | None = None,
    anchors: Sequence[int] = (),
) -> Point | None:
    """The next run that the answer needs; None when the search is finished.

    The lowest rung is run first, since the rule `degraded` compares with it; a further seed begins with the
    first of ``anchors`` that is below the rung it is asked for. ``hint`` says where the edge may lie; it has
    no vote. ``given_up`` points have failed too often and are never asked for; a rung that only they could
    decide is skipped.
    """
    return _Look(verdicts, rungs, seeds, vote, given_up, hint).next_point(anchors)


class _Look:
    """The verdicts at a moment, seed by seed."""

    def __init__(
        self,
        verdicts: Verdicts,
        rungs: int,
        seeds: int,
        vote: str,
        given_up: Collection[Point],
        hint: Bracket | None,
    ) -> None:
        self.verdicts, self.given_up = verdicts, given_up
        self.rungs, self.seeds, self.vote = rungs, seeds, vote
        self.votes = [rung_votes(verdicts, rungs, seed) for seed in range(seeds)]
        self.own = [bracket(votes) for votes in self.votes]
        self.hint = hint
        self.ends = bracket([tally(votes, vote) for votes in zip(*self.votes, strict=True)])
        self.inside = [
            rung
            for rung in range(self.ends.stable + 1, self.ends.diverged)
            if any(self.open(rung, seed) for seed in range(seeds))
        ]

    def open(self, rung: int, seed: int) -> bool:
        """True where a run can still be asked for."""
        point = Point(rung, seed)
        return point not in self.verdicts and point not in self.given_up

    def spent(self, seed: int) -> int:
        return sum(point.seed == seed for point in self.verdicts)

    def next_point(self, anchors: Sequence[int]) -> Point | None:
        point = next(self._candidates(), None)
        if point is not None:
            return self._anchor(point, anchors) or point
        if all(point.rung > 0 for point in self.verdicts):
            return next((Point(0, seed) for seed in range(self.seeds) if self.open(0, seed)), None)
        return None

    def _anchor(self, point: Point, anchors: Sequence[int]) -> Point | None:
        """A smaller rung for a seed that has run none yet."""
        if any(its.seed == point.seed and its.rung < point.rung for its in self.verdicts):
            return None
        firsts = (rung for rung in (*anchors, 0) if rung < point.rung and self.open(rung, point.seed))
        return next((Point(rung, point.seed) for rung in firsts), None)

    def _candidates(self) -> Iterator[Point]:
        if not self.inside:
            yield from self._unseen()
            return
        if self.hint is not None and self.hint.meets(self.ends):
            yield from self._compared_with(self.hint, range(self.seeds))
        for seed in self._leads():
            yield from self._narrowed(seed)
            others = [other for other in range(self.seeds) if other != seed]
            yield from self._compared_with(self.own[seed], others)
        yield from self._askable(_nearest(self.inside, _middle(self.ends)))

    def _unseen(self) -> Iterator[Point]:
        """Runs at an end of the bracket that follows from other rungs alone.

        The stable rung needs a deciding vote of its own runs; the diverged rung needs one run.
        """
        stable, diverged = self.ends.stable, self.ends.diverged
        if stable >= 0 and tally(self._own_votes(stable), self.vote) is None:
            yield from self._askable(stable)
        if diverged < self.rungs and True not in self._own_votes(diverged):
            yield from self._askable(diverged)

    def _askable(self, rung: int) -> Iterator[Point]:
        return (Point(rung, seed) for seed in range(self.seeds) if self.open(rung, seed))

    def _own_votes(self, rung: int) -> list[bool | None]:
        """A rung's votes by its own runs."""
        return [own_vote(self.verdicts, Point(rung, seed)) for seed in range(self.seeds)]

    def _leads(self) -> list[int]:
        """The seeds whose edge can be the answer, the best known first."""
        leads = [seed for seed in range(self.seeds) if self.own[seed].meets(self.ends)]
        return sorted(leads, key=lambda seed: self.own[seed].width)

    def _narrowed(self, seed: int) -> Iterator[Point]:
        """Where to look next in what is left of a seed's own bracket."""
        left = self._clipped(seed)
        rungs = [rung for rung in self.inside if left.stable < rung < left.diverged and self.open(rung, seed)]
        if rungs:
            likely = _nearest(rungs, self._likely(left))
            yield Point(likely if self._affordable(likely, seed) else _nearest(rungs, _middle(left)), seed)

    def _likely(self, left: Bracket) -> float:
        """The middle; but steps that double, from the other seeds' edges, where all of those lie outside
        (Bentley & Yao 1976, "An almost optimal algorithm for unbounded searching"): seeds seldom differ much.
        """
        known = [its for its in self.own if its.width == 1]
        if known:
            below = left.stable - max(its.diverged for its in known)
            above = min(its.stable for its in known) - left.diverged
            if below >= 0:
                return min(_middle(left), left.stable + below + 1)
            if above >= 0:
                return max(_middle(left), left.diverged - above - 1)
        return _middle(left)

    def _clipped(self, seed: int) -> Bracket:
        own, ends = self.own[seed], self.ends
        return Bracket(max(own.stable, ends.stable), min(own.diverged, ends.diverged))

    def _compared_with(self, lead: Bracket, seeds: Collection[int]) -> Iterator[Point]:
        """Whether other seeds have the same edge: first the end with more of the ladder behind it."""
        ends = [lead.stable, lead.diverged]
        if self.ends.diverged - lead.diverged > lead.stable - self.ends.stable:
            ends.reverse()
        for seed in seeds:
            for rung in ends:
                if rung in self.inside and self.votes[seed][rung] is None and self.open(rung, seed):
                    # A seed that was misled before bisects by itself: a few hints must not cost it
                    # more than a bisection.
                    if self._affordable(rung, seed):
                        yield Point(rung, seed)
                    else:
                        yield from self._narrowed(seed)

    def _affordable(self, rung: int, seed: int) -> bool:
        """True where a run here leaves a seed, at worst, within a bisection and three runs."""
        left = self._clipped(seed)
        worst = max(rung - left.stable, left.diverged - rung)
        return self.spent(seed) + 1 + (worst - 1).bit_length() <= self.rungs.bit_length() + 3


def _middle(ends: Bracket) -> float:
    return (ends.stable + ends.diverged) / 2


def _nearest(rungs: Sequence[int], place: float) -> int:
    return min(rungs, key=lambda rung: (abs(rung - place), rung))
