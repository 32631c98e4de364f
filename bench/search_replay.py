"""How often each search policy finds a recorded grid's edge, and at what share of the grid's optimizer steps.

Every policy sees the same outcomes and is read the same way: the largest rung below the first one that the
vote of three seeds calls diverged. A replay is one variant with its seeds in one order. The grid's own edge
is the truth; `record_grid.py` recorded it. Beside it stand three of its variants, drawn by lot, with seeds
that were recorded after the policy was chosen, and synthetic grids, so that no policy is tuned to one table.
"""

import argparse
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import optuna
from omegaconf import OmegaConf

from _harness import ROOT, at_least, at_most, finish, not_measured
from _synthetic_grids import KINDS, synthetic_grid
from record_grid import TABLE, rows_of
from redline.search.policy.state import Question, search_state
from redline.search.policy.verdicts import Bracket, Point, bracket, reasons
from redline.stability import Outcome, SearchRule, build_rules

UNSEEN = TABLE.with_name("grid_tiny_unseen.csv")
SEEDS = 3
TRIALS = 60  # that TPE may spend on a grid of twelve rungs
LADDER = tuple(OmegaConf.load(ROOT / "conf" / "train.yaml").search.ladder)
SWEEPER = OmegaConf.load(ROOT / "conf" / "hydra" / "sweeper" / "max_lr.yaml")
QUESTION = Question(LADDER, SEEDS, SWEEPER.vote, SWEEPER.doubt)
RULES: Mapping[str, SearchRule] = build_rules(
    {"degraded": OmegaConf.load(ROOT / "conf" / "divergence" / "default.yaml").degraded}, SearchRule
)
Outcomes = dict[Point, Outcome]


@dataclass(frozen=True)
class Replay:
    """A grid to search, and the same variant's short runs, where they were recorded."""

    name: str
    grid: Outcomes
    short_runs: Outcomes

    @property
    def edge(self) -> int:
        return edge_of(self.grid).stable

    @property
    def grid_steps(self) -> int:
        return len(LADDER) * SEEDS * max(its.optimizer_steps for its in self.grid.values())


Policy = Callable[[Replay, random.Random], Iterator[tuple[int, int]]]


def edge_of(outcomes: Outcomes) -> Bracket:
    return bracket(QUESTION.rung_verdicts(reasons(outcomes, RULES)))


def steps_of(outcomes: Outcomes) -> int:
    return sum(its.optimizer_steps for its in outcomes.values())


def ours(
    replay: Replay,
    luck: random.Random,
    *,
    short_runs: bool = False,
    workers: int = 1,
    doubt: float = SWEEPER.doubt,
) -> Iterator[tuple[int, int]]:
    """What the coordinator does with ``workers`` slots, whose runs end in any order."""
    question = replace(QUESTION, doubt=doubt)
    seen: Outcomes = {}
    short: Outcomes = {}
    state_of_short = None
    if short_runs:
        alone = Question(LADDER, 1, QUESTION.vote, doubt=1.0)
        while (point := (state_of_short := search_state(alone, RULES, short)).plan.needed) is not None:
            short[point] = replay.short_runs[point]
    running: dict[Point, None] = {}
    while True:
        now = search_state(question, RULES, seen, running, short_runs=state_of_short, speculative=workers - 1)
        if now.answered and not running:
            break
        for point in (now.plan.needed, *now.plan.speculative):
            if point is not None and point not in running and len(running) < workers:
                running[point] = None
        ended = luck.choice(list(running))
        del running[ended]
        seen[ended] = replay.grid[ended]
        for point in [point for point in running if search_state(QUESTION, RULES, seen).unneeded(point)]:
            del running[point]  # its steps so far are not counted: it has just begun
    yield steps_of(seen) + steps_of(short), edge_of(seen).stable


def vote_on(rung: int, seen: Outcomes, replay: Replay, *, all_seeds: bool) -> bool:
    """Run a rung's seeds, all or as far as they decide it; True where the vote says stable."""
    for seed in range(SEEDS):
        if all_seeds or votes_on(rung, seen) is None:
            seen[Point(rung, seed)] = replay.grid[Point(rung, seed)]
    return votes_on(rung, seen) is False


def votes_on(rung: int, seen: Outcomes) -> bool | None:
    verdicts = reasons(seen, RULES)
    return QUESTION.rung_verdicts({point: verdicts[point] for point in seen if point.rung == rung})[rung]


def at_random(replay: Replay, luck: random.Random, *, all_seeds: bool) -> Iterator[tuple[int, int]]:
    seen: Outcomes = {}
    for rung in luck.sample(range(len(LADDER)), len(LADDER)):
        vote_on(rung, seen, replay, all_seeds=all_seeds)
        yield steps_of(seen), edge_of(seen).stable


def tpe(replay: Replay, luck: random.Random, *, all_seeds: bool) -> Iterator[tuple[int, int]]:
    """Optuna's sampler on the rung, its value the LR where the vote is stable, 0 where it is not.

    A rung that it asks for again costs nothing here.
    """
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=luck.randrange(2**31))
    )
    seen: Outcomes = {}
    for _ in range(TRIALS):
        trial = study.ask()
        rung = trial.suggest_int("rung", 0, len(LADDER) - 1)
        study.tell(trial, LADDER[rung] if vote_on(rung, seen, replay, all_seeds=all_seeds) else 0.0)
        yield steps_of(seen), edge_of(seen).stable


def recorded(path: Path, max_steps: int, short_run_steps: int) -> list[Replay]:
    """Every variant of the table, with its seeds in every order."""
    tables: dict[tuple[str, int], Outcomes] = {}
    for row in rows_of(path):
        point = Point(LADDER.index(float(row["lr"])), int(row["seed"]))
        tables.setdefault((row["norm"], int(row["max_steps"])), {})[point] = outcome(row)
    replays: list[Replay] = []
    for (norm, steps), grid in tables.items():
        if steps == max_steps and len(grid) == len(LADDER) * SEEDS:
            for order in itertools.permutations(sorted({point.seed for point in grid})):
                place = {seed: index for index, seed in enumerate(order)}
                shuffled = {Point(point.rung, place[point.seed]): its for point, its in grid.items()}
                short = tables.get((norm, short_run_steps), {})
                short_runs = {point: as_short_run(its) for point, its in short.items()}
                replays.append(Replay(norm, shuffled, short_runs))
    if not replays:
        raise SystemExit(f"{path}: holds no whole grid of {max_steps} steps; record_grid.py makes one")
    return replays


def as_short_run(its: Outcome) -> Outcome:
    """A search does not hold it against a short run that it learned nothing."""
    return replace(its, reason=None) if its.reason == "no_learning" else its


def outcome(row: Mapping[str, str]) -> Outcome:
    loss = float(row["val_loss"]) if row["val_loss"] else None
    return Outcome(
        value=float(row["lr"]),
        seed=int(row["seed"]),
        reason=row["reason"] or None,
        step=int(row["step"]),
        optimizer_steps=int(row["optimizer_steps"]),
        val_loss=loss,
        initial_loss=math.nan,
        train_loss=math.nan,
        numbers={} if loss is None else {"perplexity": math.exp(loss)},
    )


def synthetic(kind: str, count: int) -> list[Replay]:
    luck = random.Random(kind)
    return [
        Replay(
            kind, synthetic_grid(kind, luck, LADDER, SEEDS, 250), synthetic_grid(kind, luck, LADDER, 1, 50)
        )
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Score:
    """Over all replays: how often the edge was found, and the share of the grid's steps that it cost."""

    exact: float
    within_one: float
    share: float

    def __str__(self) -> str:
        return (
            f"{self.exact:6.1%} exact, {self.within_one:6.1%} within one rung, {self.share:6.1%} of the steps"
        )


def scores(policy: Policy, replays: Sequence[Replay]) -> list[Score]:
    """After each answer that the policy gives; one that has stopped keeps its last one."""
    runs = []
    for index, replay in enumerate(replays):
        answers = policy(replay, random.Random(index))
        runs.append([(steps / replay.grid_steps, abs(edge - replay.edge)) for steps, edge in answers])
    longest = max(map(len, runs))
    padded = [run + run[-1:] * (longest - len(run)) for run in runs]
    return [
        Score(
            fmean(miss == 0 for _, miss in answers),
            fmean(miss <= 1 for _, miss in answers),
            fmean(share for share, _ in answers),
        )
        for answers in zip(*padded, strict=True)
    ]


def as_good(
    sampling: Callable[..., Iterator[tuple[int, int]]], replays: Sequence[Replay], hits: float
) -> Score | None:
    """The cheapest answer that is exact as often as ``hits``, with every seed run at a rung or only those
    that decide it."""
    curves = [scores(partial(sampling, all_seeds=all_seeds), replays) for all_seeds in (False, True)]
    found = [next((score for score in curve if score.exact >= hits), None) for curve in curves]
    return min((score for score in found if score is not None), key=lambda score: score.share, default=None)


def compare(name: str, replays: Sequence[Replay], short_runs: bool) -> dict[str, Score | None]:
    """Every policy on the same replays; the sampling ones where they get as good as ours."""
    print(f"{name}: {len(replays)} replays")
    found: dict[str, Score | None] = {"ours": scores(ours, replays)[-1]}
    found["ours, 4 workers"] = scores(partial(ours, workers=4), replays)[-1]
    if short_runs:
        found["ours, short runs"] = scores(partial(ours, short_runs=True), replays)[-1]
    for doubt in (0.1, 0.3, 1.0):
        found[f"ours, doubt={doubt}"] = scores(partial(ours, doubt=doubt), replays)[-1]
    hits = found["ours"].exact  # type: ignore[union-attr]
    found["random"], found["tpe"] = (as_good(sampling, replays, hits) for sampling in (at_random, tpe))
    for policy, score in found.items():
        print(f"  {policy:16} {score or f'never as good in {TRIALS} trials'}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--max-steps", type=int, default=250)
    parser.add_argument("--short-run-steps", type=int, default=50)
    parser.add_argument("--synthetic", type=int, default=60, help="grids of each kind")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    replays = recorded(arguments.table, arguments.max_steps, arguments.short_run_steps)
    print("the grid itself: 100% of the steps, by definition exact")
    recorded_short = all(len(replay.short_runs) == len(LADDER) for replay in replays)
    found = compare(f"recorded, {len({replay.name for replay in replays})} variants", replays, recorded_short)
    bars = {}
    unseen = compare(
        "recorded, unseen seeds",
        recorded(UNSEEN, arguments.max_steps, arguments.short_run_steps),
        short_runs=False,
    )["ours"]
    assert unseen is not None
    bars["unseen/exact"] = at_least(0.9, unseen.exact)
    bars["unseen/within_one_rung"] = at_least(0.99, unseen.within_one)
    bars["unseen/share_of_grid_steps"] = at_most(0.3, unseen.share)
    for kind in KINDS:
        made_up = compare(f"synthetic, {kind}", synthetic(kind, arguments.synthetic), short_runs=False)[
            "ours"
        ]
        assert made_up is not None
        bars[f"{kind}/exact"] = at_least(0.9, made_up.exact)
    mine, theirs = found["ours"], found["tpe"]
    assert mine is not None
    finish(
        "search_replay",
        {
            "recorded/exact": at_least(0.9, mine.exact),
            "recorded/within_one_rung": at_least(0.99, mine.within_one),
            "recorded/share_of_grid_steps": at_most(0.3, mine.share),
            "recorded/share_of_tpe_steps": at_most(0.5, mine.share / theirs.share)
            if theirs
            else not_measured(0.5, "TPE never found the edge as often"),
            **bars,
        },
    )


if __name__ == "__main__":
    main()
