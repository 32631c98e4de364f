"""A run that is stopped anywhere, and resumed from any earlier step, is judged as one that never was."""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from redline.stability import BlowUp, NoLearning, NonFinite, NoReturn, Outcome, Score, Watch

LOSSES = st.lists(
    st.floats(0.5, 12.0) | st.sampled_from([2.0, 9.0]) | st.sampled_from([math.nan, math.inf]),
    min_size=1,
    max_size=40,
)
RULES = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 6), st.integers(1, 6), st.booleans())
CUTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10), st.integers(0, 23)), max_size=3)
EVERY = st.sampled_from([1, 1, 3, 10])


def fresh(smoothing: float, warmup_steps: int, patience: int, with_non_finite: bool) -> dict[str, Any]:
    rules = {
        "blow_up": BlowUp(warmup_steps, patience / 40, smoothing, max_steps=40),
        "no_return": NoReturn(1.0, patience / 40, smoothing, max_steps=40),
        "no_learning": NoLearning(),
    }
    return {"non_finite": NonFinite(), **rules} if with_non_finite else rules


def ended(watch: Watch) -> Outcome:
    return watch.outcome(0.1, 0, Score(4.0, floor=5.0), None)


def same(one: Outcome, other: Outcome) -> bool:
    return repr(one) == repr(other)  # NaN equals itself there


@given(LOSSES, RULES, CUTS, EVERY)
@settings(deadline=None, derandomize=True, max_examples=80)
def test_a_resumed_run_is_judged_as_if_it_had_never_been_stopped(
    losses: list[float], chosen: Any, cuts: list[tuple[int, int, int]], every: int
) -> None:
    """A cut: after so many reports, back to a checkpoint so many before, with so many bytes half written."""
    whole = Watch(fresh(*chosen))
    stops = [whole.report(index * every, loss, 1.0) for index, loss in enumerate(losses)]
    folder = Path(tempfile.mkdtemp())
    try:
        curve, start = folder / "trial" / "curve.bin", 0
        for until, back, torn in sorted(cuts):
            watch = Watch(fresh(*chosen), curve=curve)
            until = min(until, len(losses))
            for index in range(start, until):
                assert watch.report(index * every, losses[index], 1.0) == stops[index]
            if start < until:  # half a record, by a kill while it was written
                with curve.open("ab") as file:
                    file.write(b"\x01" * torn)
            start = max(0, max(start, until) - back)
        watch = Watch(fresh(*chosen), curve=curve)
        for index in range(start, len(losses)):
            assert watch.report(index * every, losses[index], 1.0) == stops[index]
        assert same(ended(watch), ended(whole))
    finally:
        shutil.rmtree(folder)


def test_a_run_that_begins_again_forgets_what_it_reported(tmp_path: Path) -> None:
    before = Watch(fresh(0.0, 0, 2, True), curve=tmp_path / "curve.bin")
    for step, loss in enumerate([1.0, 9.0, 9.0]):
        before.report(step, loss)
    assert before.verdict is not None
    again = Watch(fresh(0.0, 0, 2, True), curve=tmp_path / "curve.bin")
    assert not again.report(0, 5.0)
    assert (again.initial_loss, again.steps_seen) == (5.0, 1)


def test_a_kill_before_the_first_report_of_a_resumed_run_loses_nothing(tmp_path: Path) -> None:
    """The file is cut, never written anew: what it holds of earlier steps is there at every moment."""
    curve = tmp_path / "curve.bin"
    before = Watch(fresh(0.0, 0, 2, True), curve=curve)
    for step in range(10):
        before.report(step, 5.0 - step)
    inode, size = curve.stat().st_ino, curve.stat().st_size
    Watch(fresh(0.0, 0, 2, True), curve=curve).report(4, 1.0)
    assert curve.stat().st_ino == inode
    assert curve.stat().st_size == size // 2
