"""Which run to ask for next: a pure function of the verdicts so far.

Every seed bisects the ladder for its own edge, but runs only where it can still move the vote: the first
seed looks for the edge, the others look whether it is theirs too.
"""

from collections.abc import Collection, Iterator, Sequence

from redline.search.verdicts import Bracket, Point, Verdicts, Vote, bracket, rung_votes, tally


def next_point(
    verdicts: Verdicts,
    *,
    rungs: int,
    seeds: int,
    vote: Vote,
    given_up: Collection[Point] = (),
    hint: Bracket | None = None,
    anchors: Sequence[int] = (),
) -> Point | None:
    """The run that the answer hangs on, for a worker who is alone; None once it hangs on none.

    The lowest rung is run first, since rule 5 compares with it; a further seed begins with the first of
    ``anchors`` that is below what it is asked for. ``hint`` says where the edge may lie, as a seed that has
    no vote would. ``given_up`` points have failed too often and are never asked for; a rung that has no
    other run left to decide it is passed over.
    """
    return _Look(verdicts, rungs, seeds, vote, given_up, hint).next_point(anchors)


class _Look:
    """The verdicts at a moment, seed by seed."""

    def __init__(
        self,
        verdicts: Verdicts,
        rungs: int,
        seeds: int,
        vote: Vote,
        given_up: Collection[Point],
        hint: Bracket | None,
    ) -> None:
        self.verdicts, self.given_up = verdicts, given_up
        self.rungs, self.seeds = rungs, seeds
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
        # Runs end in any order: what was asked for ahead may have answered before what rule 5 needs.
        for seed in range(self.seeds):
            if self.spent(seed):
                anchor = self._anchor(Point(self.ends.stable, seed), anchors)
                if anchor is not None:
                    return anchor
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
            yield from self._halved(seed)
            others = [other for other in range(self.seeds) if other != seed]
            yield from self._compared_with(self.own[seed], others)
        middle = _nearest(self.inside, self.ends)
        yield from (Point(middle, seed) for seed in range(self.seeds) if self.open(middle, seed))

    def _unseen(self) -> Iterator[Point]:
        """Runs at an end of the bracket that follows from other rungs alone: it is not claimed unseen."""
        for rung, diverged in ((self.ends.stable, False), (self.ends.diverged, True)):
            if not 0 <= rung < self.rungs:
                continue
            points = [Point(rung, seed) for seed in range(self.seeds)]
            if not any(
                its in self.verdicts and (self.verdicts[its] is not None) == diverged for its in points
            ):
                yield from (point for point in points if self.open(*point))

    def _leads(self) -> list[int]:
        """The seeds whose edge can be the answer, the best known first."""
        leads = [seed for seed in range(self.seeds) if self.own[seed].meets(self.ends)]
        return sorted(leads, key=lambda seed: self.own[seed].width)

    def _halved(self, seed: int) -> Iterator[Point]:
        """The middle of what is left of a seed's own bracket."""
        left = self._clipped(seed)
        rungs = [rung for rung in self.inside if left.stable < rung < left.diverged and self.open(rung, seed)]
        if rungs:
            yield Point(_nearest(rungs, left), seed)

    def _clipped(self, seed: int) -> Bracket:
        own, ends = self.own[seed], self.ends
        return Bracket(max(own.stable, ends.stable), min(own.diverged, ends.diverged))

    def _compared_with(self, lead: Bracket, seeds: Collection[int]) -> Iterator[Point]:
        """Whether others share an edge: first the end behind which more of the ladder lies."""
        ends = [lead.stable, lead.diverged]
        if self.ends.diverged - lead.diverged > lead.stable - self.ends.stable:
            ends.reverse()
        for seed in seeds:
            for rung in ends:
                if rung in self.inside and self.votes[seed][rung] is None and self.open(rung, seed):
                    # A seed that was led astray before finds its own way: a few leads must not cost
                    # it more than a bisection.
                    if self._affordable(rung, seed):
                        yield Point(rung, seed)
                    else:
                        yield from self._halved(seed)

    def _affordable(self, rung: int, seed: int) -> bool:
        """True where a run here leaves a seed, at worst, within a bisection and two runs."""
        left = self._clipped(seed)
        worst = max(rung - left.stable, left.diverged - rung)
        return self.spent(seed) + 1 + (worst - 1).bit_length() <= self.rungs.bit_length() + 2


def _nearest(rungs: Sequence[int], ends: Bracket) -> int:
    """The rung nearest to half way between the ends."""
    return min(rungs, key=lambda rung: (abs(2 * rung - ends.stable - ends.diverged), rung))
