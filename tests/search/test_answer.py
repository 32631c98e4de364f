"""What follows from a variant's state: the numbers of its result."""

import math
from collections.abc import Collection
from dataclasses import asdict, replace

import pytest
from search_helpers import BEST, FLOOR, MadeUp, cut_outcome, outcome, question, searched

from redline.search.policy.answer import variant_result
from redline.search.policy.points import Point
from redline.search.policy.state import search_state
from redline.search.result import QUANTILES, VariantResult
from redline.search.trainable import Facts
from redline.stability import Outcome

LADDER = (0.1, 0.2, 0.4, 0.8)
FACTS = Facts(max_steps=10, coupled_decay=0.1)
FIXED_KEYS = {
    "max_useful_lr",
    "max_useful_lr_90",
    "max_useful_rung",
    "max_stable_lr",
    "max_stable_lr_90",
    "max_stable_rung",
    "first_diverged_lr",
    "censored",
    "first_diverged_reason",
    "ratio",
    "val_loss",
    "val_losses",
    "val_perplexity",
    "best_lr",
    "best_val_loss",
    "trials",
    "optimizer_steps",
    "grid_steps",
}


def runs(ends: str, first_loss: float = 4.2) -> dict[Point, Outcome]:
    """One seed's runs, a letter a rung: (s)table, (l)ost, (d)iverged, (n)othing learned, (c)ut, (-) not run.

    Losses fall by 0.1 a rung.
    """
    known = {
        "s": lambda rung: outcome(LADDER[rung], val_loss=first_loss - 0.1 * rung),
        "l": lambda rung: outcome(LADDER[rung], val_loss=5.8),
        "d": lambda rung: outcome(LADDER[rung], reason="blow_up", val_loss=None, steps=5),
        "n": lambda rung: outcome(LADDER[rung], reason="no_learning", val_loss=6.1),
        "c": lambda rung: cut_outcome(LADDER[rung], expected=5.8),
    }
    return {Point(rung, 0): known[end](rung) for rung, end in enumerate(ends) if end != "-"}


def result(outcomes: dict[Point, Outcome], seeds: int = 1, given_up: Collection[Point] = ()) -> VariantResult:
    asked = question(LADDER, seeds, settled=1.0)
    return variant_result(search_state(asked, outcomes, given_up=given_up, max_steps=10), FACTS)


def test_an_edge_gives_every_fixed_key() -> None:
    its = result(runs("s-sd"))
    assert set(asdict(its)) >= FIXED_KEYS
    assert its.max_useful_lr is not None
    assert its.max_useful_lr_90 is not None
    assert 0.2 < its.max_useful_lr_90[0] < its.max_useful_lr < its.max_useful_lr_90[1]
    assert its.max_useful_rung == max(value for value in LADDER if value <= its.max_useful_lr)
    assert its.max_stable_lr == pytest.approx(math.sqrt(0.4 * 0.8), rel=0.2)
    assert (its.first_diverged_lr, its.first_diverged_reason, its.first_diverged_step) == (0.8, "blow_up", 4)
    assert (its.best_lr, its.best_val_loss, its.floor) == (0.4, pytest.approx(4.0), 6.0)
    assert (its.trials, its.optimizer_steps, its.grid_steps) == (3, 25, 40)
    assert its.decay_per_step == pytest.approx(0.1 * its.max_useful_lr)
    assert its.version == 2


def test_a_result_survives_json() -> None:
    its = result(runs("ssld"))
    assert VariantResult.from_dict(asdict(its)) == its


def test_the_useful_edge_lies_below_a_run_that_is_lost_and_the_stable_one_above() -> None:
    its = result(runs("ssld"))
    assert its.max_useful_lr is not None
    assert its.max_stable_lr is not None
    assert 0.2 <= its.max_useful_lr < 0.4 < its.max_stable_lr < 0.8
    assert (its.max_useful_rung, its.max_stable_rung) == (0.2, 0.4)
    assert its.val_loss == pytest.approx(4.1)


def test_a_posterior_is_kept_at_its_quantiles() -> None:
    its = result(runs("ssld"))
    for edge, values in (
        (its.max_useful_lr, its.useful_quantiles),
        (its.max_stable_lr, its.stable_quantiles),
    ):
        assert len(values) == len(QUANTILES)
        assert values[QUANTILES.index(0.5)] == pytest.approx(edge, rel=1e-2)


def test_the_curve_is_in_nats_and_its_chances_grow() -> None:
    its = result(runs("ssld"))
    assert its.curve is not None
    assert (its.curve.lr[0], its.curve.lr[-1]) == (0.1, 0.8)
    assert all(low <= high for low, high in zip(its.curve.loss_low, its.curve.loss_high, strict=True))
    at = min(range(40), key=lambda place: abs(its.curve.lr[place] - 0.4))  # type: ignore[union-attr]
    assert its.curve.loss[at] == pytest.approx(5.8, abs=0.3)
    assert its.curve.chance_lost[0] < 0.1 < 0.9 < its.curve.chance_lost[-1]
    assert its.curve.chance_diverged[0] < 0.1 < its.curve.chance_diverged[-1]


def test_perplexity_is_of_the_mean_loss_over_seeds() -> None:
    both = {Point(0, seed): outcome(seed=seed, val_loss=3.0 + seed / 10) for seed in (0, 1)}
    both |= {Point(1, seed): outcome(0.2, seed, reason="blow_up", val_loss=None) for seed in (0, 1)}
    its = result(both, seeds=2)
    assert its.val_loss == pytest.approx(3.05)
    assert its.val_losses == {"0": 3.0, "1": 3.1}
    assert its.val_perplexity == pytest.approx(math.exp(3.05))
    assert its.grid_steps == 80


def test_first_diverged_is_where_half_of_the_seeds_that_ran_diverged() -> None:
    seeds = {Point(rung, seed): outcome(LADDER[rung], seed) for rung in (0, 1, 2) for seed in (0, 1, 2)}
    for rung, seed in ((1, 0), (2, 0), (2, 2)):
        seeds[Point(rung, seed)] = outcome(LADDER[rung], seed, reason="blow_up", val_loss=None)
    assert result(seeds, seeds=3).first_diverged_lr == 0.4
    seeds[Point(1, 1)] = cut_outcome(0.2, 1)  # does not say whether it would have diverged
    assert result(seeds, seeds=3).first_diverged_lr == 0.2


def test_the_step_of_a_divergence_is_the_earliest_of_the_seeds_that_broke_the_rule() -> None:
    steps = {"blow_up": [8, 6], "non_finite": [2]}
    broken = [(reason, count) for reason, counts in steps.items() for count in counts]
    both = {Point(0, seed): outcome(seed=seed) for seed in range(3)}
    both |= {
        Point(1, seed): outcome(0.2, seed, reason=reason, val_loss=None, steps=count)
        for seed, (reason, count) in enumerate(broken)
    }
    its = result(both, seeds=3)
    assert (its.first_diverged_reason, its.first_diverged_step) == ("blow_up", 5)


def test_a_value_too_small_to_learn_anything_has_not_diverged_for_being_too_large() -> None:
    its = result(runs("nssd"))
    assert its.first_diverged_lr == 0.8
    assert its.censored is None


def test_the_best_loss_may_lie_at_another_value_and_is_finite() -> None:
    outcomes = {Point(0, 0): outcome(val_loss=4.0), Point(1, 0): outcome(0.2, val_loss=4.2)}
    outcomes[Point(2, 0)] = outcome(0.4, val_loss=math.nan, reason="no_learning")
    outcomes[Point(3, 0)] = outcome(0.8, val_loss=math.inf, reason="no_learning")
    its = result(outcomes)
    assert (its.best_lr, its.best_val_loss) == (0.1, 4.0)
    assert its.max_useful_rung == 0.2


@pytest.mark.parametrize(
    ("ends", "useful", "stable"),
    [
        ("ssss", "above", "above"),
        ("s--s", "above", "above"),
        ("d---", "below", "below"),
        ("nnnn", "below", "below"),
        ("ssll", None, "above"),
    ],
)
def test_a_censored_edge_is_no_number(ends: str, useful: str | None, stable: str | None) -> None:
    its = result(runs(ends))
    assert (its.censored, its.stable_censored) == (useful, stable)
    for side, point, interval, rung, quantiles in (
        (useful, its.max_useful_lr, its.max_useful_lr_90, its.max_useful_rung, its.useful_quantiles),
        (stable, its.max_stable_lr, its.max_stable_lr_90, its.max_stable_rung, its.stable_quantiles),
    ):
        assert (side is None) == (point is not None) == (interval is not None) == bool(quantiles)
        assert side is None or rung is None
    assert (its.val_loss is None) == (useful is not None)
    assert (its.first_diverged_lr is None) == (stable == "above")


def test_a_value_whose_runs_crashed_is_left_open_unless_the_interval_is_narrow() -> None:
    its = result(runs("s-sd"), given_up={Point(1, 0)})
    assert its.open == (0.2,)
    narrow = searched(MadeUp(0.3, breaks=0.7), question(LADDER, 3, resolution=4.0))
    assert narrow.stopped == "resolution"
    assert variant_result(replace(narrow, given_up={Point(0, 0)}), FACTS).open == ()


@pytest.mark.parametrize(("ends", "left"), [("sss-", {3}), ("s---", {1, 2, 3}), ("----", {0, 1, 2, 3})])
def test_a_value_that_only_crashed_is_never_claimed_as_useful(ends: str, left: set[int]) -> None:
    """A top rung that crashed is no evidence that the edge lies above it."""
    its = result(runs(ends), given_up={Point(rung, 0) for rung in left})
    assert its.max_useful_lr is None
    assert its.open == tuple(LADDER[rung] for rung in sorted(left))
    assert its.censored is None


def test_a_cut_run_is_counted_with_its_steps() -> None:
    its = result(runs("ss-c"))
    assert (its.trials, its.cut, its.optimizer_steps) == (3, 1, 24)
    assert its.stable_censored == "above"
    assert its.max_useful_lr is not None


def test_what_may_hide_divergence_is_added_up_over_the_runs() -> None:
    counts = [{"zclip": 2}, {}, {"zclip": 3, "fp16_scaler": 0}]
    known = zip(runs("sss-").items(), counts, strict=True)
    changed = {point: replace(its, interventions=count) for (point, its), count in known}
    assert result(changed).interventions == {"zclip": 5, "fp16_scaler": 0}
    assert result(runs("sss-")).interventions == {}


def test_other_runs_steps_are_part_of_the_cost() -> None:
    state = search_state(question(LADDER), runs("ssd-"), max_steps=10)
    its = variant_result(state, FACTS, short_runs=[outcome(steps=4)], cancelled_steps=7)
    assert (its.short_runs, its.optimizer_steps) == (1, 25 + 4 + 7)


def test_a_run_is_in_doubt_where_it_may_be_on_either_side_of_the_edge() -> None:
    lost, middle = 5.8, 4.6  # a share of 0.3, with the best loss at 4.0
    outcomes = {
        Point(rung, 0): outcome(LADDER[rung], val_loss=loss) for rung, loss in enumerate((4.0, middle))
    }
    outcomes |= {Point(2, 0): outcome(LADDER[2], val_loss=lost)}
    assert result(outcomes).doubtful == pytest.approx(1 / 3, abs=0.01)
    assert result({}).doubtful is None


def test_where_no_floor_is_known_there_is_no_curve_in_nats() -> None:
    unknown = {point: replace(its, initial_loss=math.nan) for point, its in runs("s-sd").items()}
    its = result(unknown)
    assert (its.floor, its.curve) == (None, None)
    assert its.max_useful_rung == 0.4


def test_a_ladder_that_has_grown_gives_points_off_the_users_own() -> None:
    state = searched(MadeUp(3.0, breaks=20.0), question(LADDER, 2, extend=True))
    its = variant_result(state, FACTS)
    assert its.max_useful_lr is not None
    assert its.max_useful_lr > 0.8
    assert its.max_useful_rung == 0.8
    assert its.censored is None
    below = variant_result(searched(MadeUp(0.03, breaks=0.4), question(LADDER, 2, extend=True)), FACTS)
    assert below.max_useful_lr is not None
    assert (below.max_useful_rung, below.val_loss) == (None, None)
    assert below.best_val_loss is not None
    assert BEST < below.best_val_loss < FLOOR
