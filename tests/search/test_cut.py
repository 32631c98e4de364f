"""The chance that a run ends useful, on curves of other families than the model's own."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.search.policy.cut import Curve, CutPrior, Prospect, prospect

FLOOR, START, WINDOWS, CUT = 5.7, 7.0, 50, 0.02
NOISE_W = 0.05 * np.random.default_rng(0).standard_normal(WINDOWS)  # of the batches, which all runs share
SHARE_W = (np.arange(WINDOWS) + 0.5) / WINDOWS
FLOATS = {"allow_nan": False, "allow_infinity": False}


def power_law(end: float, power: float = 0.5) -> np.ndarray:
    """From the initial loss to ``end``."""
    fall_W = (1 + 50 * SHARE_W) ** -power
    return end + (START - end) * (fall_W - fall_W[-1]) / (1 - fall_W[-1]) + NOISE_W


def plateau(until: float, end: float, power: float | None = None) -> np.ndarray:
    """Near the floor until a share of the run, then to ``end`` along a straight line or by a power law."""
    since_W = np.maximum(0, SHARE_W - until) / (1 - until)
    fall_W = since_W if power is None else (1 - (1 + 20 * since_W) ** -power) / (1 - 21**-power)
    return np.where(SHARE_W < 0.06, START, 5.65 - (5.65 - end) * fall_W) + NOISE_W


def prospects(own: Sequence[float], *smaller: Curve) -> list[Prospect | None]:
    """After each window. What runs still, is as far as the run itself."""
    return [
        prospect(
            own[:done],
            [its if its.final is not None else Curve(its.losses[:done]) for its in smaller],
            floor=FLOOR,
            windows=WINDOWS,
        )
        for done in range(1, WINDOWS + 1)
    ]


def lowest(own: Sequence[float], *smaller: Curve) -> float:
    return min(its.chance_useful for its in prospects(own, *smaller) if its is not None)


def cut_at(own: Sequence[float], *smaller: Curve) -> int | None:
    """After how many windows the search would cut the run."""
    found = enumerate(prospects(own, *smaller), start=1)
    return next((done for done, its in found if its is not None and its.chance_useful < CUT), None)


BEST = power_law(4.3)
ENDED, RUNNING = Curve(BEST, 4.3), Curve(BEST)
BOTH = pytest.mark.parametrize("best", [ENDED, RUNNING], ids=["ended", "running"])


@BOTH
def test_a_run_like_the_best_is_useful(best: Curve) -> None:
    assert lowest(BEST, best) > 0.8
    last = prospects(BEST, best)[-1]
    assert last is not None
    assert last.chance_useful > 0.99
    assert last.loss == pytest.approx(4.3, abs=0.1)


@BOTH
def test_a_better_run_is_useful(best: Curve) -> None:
    assert lowest(power_law(4.0), best) > 0.8


@BOTH
def test_a_run_that_learns_nothing_is_cut_in_the_middle(best: Curve) -> None:
    done = cut_at(plateau(0, 5.65), best)
    assert done is not None
    assert 0.2 * WINDOWS < done <= 0.65 * WINDOWS


@BOTH
def test_a_run_whose_loss_explodes_is_cut_at_once(best: Curve) -> None:
    done = cut_at(np.where(SHARE_W < 0.06, START, 20 + 100 * NOISE_W), best)
    assert done is not None
    assert done <= 0.3 * WINDOWS


@BOTH
@pytest.mark.parametrize("height", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("at", [0.2, 0.4, 0.7])
def test_a_spike_that_recovers_is_not_cut(best: Curve, height: float, at: float) -> None:
    spike_W = np.where(at > SHARE_W, 0, height * np.exp(-(SHARE_W - at) / 0.04))
    assert cut_at(BEST + spike_W, best) is None


@BOTH
@pytest.mark.parametrize("power", [None, 1.0])
def test_a_run_that_starts_late_and_overtakes_is_not_cut(best: Curve, power: float | None) -> None:
    own = plateau(0.25, 4.0, power)
    assert own[WINDOWS // 4] > BEST[WINDOWS // 4] + 0.4
    assert own[-1] < BEST[-1] - 0.2
    assert cut_at(own, best) is None


@given(
    chance=st.integers(0, 2**32 - 1),
    constant=st.floats(-3, 30, **FLOATS),
    scale=st.floats(0.01, 100, **FLOATS),
    ended=st.booleans(),
)
@settings(max_examples=60, derandomize=True, deadline=None)
def test_the_unit_and_the_zero_of_losses_do_not_matter(
    chance: int, constant: float, scale: float, ended: bool
) -> None:
    luck = np.random.default_rng(chance)
    own = plateau(luck.uniform(0, 0.5), luck.uniform(4, 6))[: luck.integers(8, WINDOWS + 1)]
    final = 4.3 if ended else None
    one = prospect(own, [Curve(BEST, final)], floor=FLOOR)
    final = constant + scale * 4.3 if ended else None
    other = prospect(
        constant + scale * own, [Curve(constant + scale * BEST, final)], floor=constant + scale * FLOOR
    )
    if one is None:
        assert other is None
        return
    assert other is not None
    assert other.chance_useful == pytest.approx(one.chance_useful, rel=1e-5)
    assert other.loss == pytest.approx(constant + scale * one.loss, rel=1e-6)
    assert other.spread == pytest.approx(scale * one.spread, rel=1e-5)


@given(
    st.lists(st.floats(0.01, 5, **FLOATS), min_size=WINDOWS, max_size=WINDOWS),
    st.none() | st.floats(4.31, 9, **FLOATS),
    st.booleans(),
    st.integers(1, WINDOWS),
)
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_further_run_that_is_worse_changes_nothing(
    above: list[float], final: float | None, first: bool, length: int
) -> None:
    own = plateau(0.1, 4.6)
    worse = Curve((BEST + np.array(above))[: WINDOWS if final else length], final)
    for best in (ENDED, RUNNING):
        if best is RUNNING and final is not None:
            continue  # its final loss tells how far the best one's falls at least
        assert prospects(own, *([worse, best] if first else [best, worse])) == prospects(own, best)


@given(st.integers(8, WINDOWS), st.floats(0, 3, **FLOATS), st.floats(0, 3, **FLOATS), st.booleans())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_larger_gap_is_never_a_better_chance(done: int, one: float, other: float, ended: bool) -> None:
    best = ENDED if ended else RUNNING
    near, far = (
        prospect(BEST[:done] + gap, [best], floor=FLOOR, windows=WINDOWS) for gap in sorted((one, other))
    )
    assert near is not None
    assert far is not None
    assert far.chance_useful <= near.chance_useful + 1e-9
    assert near.loss <= far.loss + 1e-9
    assert far.loss <= FLOOR + 1e-9


def test_the_expected_loss_grows_surer_and_a_final_loss_that_is_known_helps() -> None:
    known, unknown = ([its.spread for its in prospects(BEST, of) if its] for of in (ENDED, RUNNING))
    assert known == sorted(known, reverse=True)
    assert unknown[-1] < 0.2 < unknown[0]
    assert all(one < other for one, other in zip(known[:20], unknown[:20], strict=True))


def test_a_final_loss_below_what_the_best_run_promises_counts() -> None:
    """Of a run that was behind at this share of it and came to learn more in the end."""
    own, low = BEST[:30] + 0.3, Curve(BEST + 0.01, 3.3)
    alone, beside = (prospect(own, its, floor=FLOOR) for its in ([RUNNING], [RUNNING, low]))
    assert alone is not None
    assert beside is not None
    assert beside.loss < alone.loss - 0.3
    assert beside.chance_useful > alone.chance_useful


def test_the_prior_is_an_argument() -> None:
    patient, slow = CutPrior(wait=0.5), CutPrior(window=0.2)
    first = {
        prior: next(d for d in range(51) if prospect(BEST[:d], [ENDED], floor=FLOOR, prior=prior))
        for prior in (patient, slow)
    }
    assert first == {patient: 25, slow: 20}


def test_the_chance_depends_on_what_counts_as_lost() -> None:
    own = power_law(4.7)[:30]
    strict, mild = (prospect(own, [ENDED], floor=FLOOR, lost_share=share) for share in (0.1, 0.5))
    assert strict is not None
    assert mild is not None
    assert strict.chance_useful < 0.5 < mild.chance_useful


def test_there_is_nothing_to_compare_with() -> None:
    own = BEST[:25]

    def nothing(*smaller: Curve, own: np.ndarray = own) -> bool:
        return prospect(own, smaller, floor=FLOOR) is None

    assert nothing()
    assert nothing(Curve(BEST[:24])), "not as far"
    assert nothing(Curve(plateau(0, 5.65) + 0.1)), "it has learned nothing"
    assert nothing(Curve(plateau(0, 5.65) + 0.1, 5.8)), "it has learned nothing"
    assert nothing(ENDED, own=BEST[:0]), "the run has not begun"
    assert nothing(ENDED, own=BEST[:7]), "it warms up"
    assert not nothing(ENDED, own=BEST[:8])
    assert not nothing(Curve(own))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_not_judged(bad: float) -> None:
    own, broken = BEST[:25].copy(), BEST.copy()
    own[3] = broken[20] = bad
    assert prospect(own, [ENDED], floor=FLOOR) is None
    assert prospect(BEST[:25], [Curve(broken, 4.3)], floor=FLOOR) is None
    with_it = prospect(BEST[:25], [Curve(BEST[:12], bad), ENDED, Curve(broken)], floor=FLOOR)
    assert with_it == prospect(BEST[:25], [ENDED], floor=FLOOR)


@pytest.mark.parametrize("windows", [20, 50, 200])
def test_the_number_of_windows_hardly_matters(windows: int) -> None:
    """A run that is stuck at 60% of it, and one that is not."""
    share_W = (np.arange(6 * windows // 10) + 0.5) / windows
    best, lost = START - 2.7 * share_W**0.3, np.full(len(share_W), 5.65)
    found = [prospect(own, [Curve(best, 4.3)], floor=FLOOR, windows=windows) for own in (best, lost)]
    assert [its is not None and its.chance_useful > CUT for its in found] == [True, False]


@BOTH
def test_few_runs_that_would_end_useful_are_cut(best: Curve) -> None:
    """Plateaus that end before 30% of the run, power laws, and gaps that waver."""
    luck, useful, wrong, lost, saved = np.random.default_rng(1), 0, 0, 0, 0
    for index in range(240):
        end, until, power = luck.uniform(4.1, 5.7), luck.uniform(0, 0.3), luck.uniform(0.2, 1.5)
        own = [plateau(until, end), plateau(until, end, power), power_law(end, power)][index % 3]
        own = own + luck.choice([0, 0.05, 0.1]) * luck.standard_normal(WINDOWS)
        done = cut_at(own, best)
        if (end - 4.3) / (FLOOR - 4.3) < 0.25:
            useful, wrong = useful + 1, wrong + (done is not None)
        else:
            lost, saved = lost + WINDOWS, saved + (0 if done is None else WINDOWS - done)
    assert wrong <= 0.02 * useful
    assert saved > 0.3 * lost
