"""What the report computes itself: what grew first, LR sensitivity, the largest logit."""

import ast
import math
from pathlib import Path

import pandas as pd
import pytest
from made_up_store import INITIAL, ODD_NAME, Stores, read_search
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure

import redline.report
from redline.report import Search, loss_against_lr, max_attention_logit, norm_curves, norm_heatmap
from redline.report.topics.attention_logit import largest_logit
from redline.report.topics.lr_sensitivity import common_values, sensitivity
from redline.report.topics.output_norms import Growth, first_growth, growth_sentence, output_norms


@pytest.fixture(scope="module")
def full(stores: Stores) -> Search:
    return read_search(stores, "full")


def norms(**layers: dict[int, float]) -> pd.DataFrame:
    """As in ``fc1_0={step: norm}``."""
    columns = {tuple(name.split("_")): points for name, points in layers.items()}
    return pd.DataFrame({(site, int(layer)): pd.Series(points) for (site, layer), points in columns.items()})


def test_the_first_to_exceed_the_factor_is_found_at_the_same_step() -> None:
    stable = norms(fc1_0={0: 1.0, 10: 1.0, 20: 1.0}, fc2_1={0: 1.0, 10: 4.0, 20: 4.0})
    diverged = norms(fc1_0={0: 1.0, 10: 1.9, 20: 9.0}, fc2_1={0: 1.0, 10: 8.5, 20: 9.0})
    assert first_growth(stable, diverged, 2.0) == Growth("fc2", 1, 10, 2.125)
    assert first_growth(stable, diverged, 3.0) == Growth("fc1", 0, 20, 9.0)
    assert first_growth(stable, diverged, 10.0) is None


def test_exactly_the_factor_is_not_above_it() -> None:
    assert first_growth(norms(fc1_0={0: 1.0}), norms(fc1_0={0: 2.0}), 2.0) is None


def test_of_several_at_one_step_the_largest_is_named() -> None:
    stable = norms(fc1_0={5: 1.0}, proj_3={5: 1.0})
    assert first_growth(stable, norms(fc1_0={5: 3.0}, proj_3={5: 4.0}), 2.0) == Growth("proj", 3, 5, 4.0)


def test_a_norm_that_is_no_number_has_grown_and_one_of_the_stable_run_is_not_compared() -> None:
    odd = norms(qkv_0={0: math.inf})  # NaN is read as infinite
    assert first_growth(norms(qkv_0={0: 1.0}), odd, 2.0) == Growth("qkv", 0, 0, math.inf)
    assert first_growth(odd, norms(qkv_0={0: 9.0}), 2.0) is None
    assert first_growth(norms(qkv_0={0: 0.0}), norms(qkv_0={0: 9.0}), 2.0) is None


def test_steps_that_only_one_run_logged_are_not_compared() -> None:
    assert first_growth(norms(qkv_0={0: 1.0, 10: 1.0}), norms(qkv_0={5: 9.0, 10: 1.0}), 2.0) is None
    assert first_growth(pd.DataFrame(), norms(qkv_0={0: 9.0}), 2.0) is None


def test_the_sentence_names_site_layer_step_and_verdict(full: Search) -> None:
    said = growth_sentence(full.variant("baseline"), "LR")
    assert "fc2 of layer 1 grew first. At step 20 its norm was no finite number" in said
    assert "(LR 0.1, diverged by non_finite at step 30, against 0.05)" in said
    said = growth_sentence(full.variant(ODD_NAME), "LR")
    assert "grew first. At step 0 its norm was 2.5 times the useful run's" in said
    assert "no layer's output exceeded 3 times" in growth_sentence(full.variant(ODD_NAME), "LR", 3.0)


def test_norms_are_read_by_site_and_layer(full: Search) -> None:
    found = output_norms(full.variant("baseline").pair.useful)
    assert list(found) == [(site, layer) for site in ("qkv", "proj", "fc1", "fc2") for layer in range(3)]
    assert list(found["qkv", 2][:2]) == [3.0, 6.0]
    odd = output_norms(full.variant("baseline").pair.above)["fc2", 1]
    assert (odd[20], odd[30]) == (math.inf, math.inf)  # the second was NaN


def test_sensitivity_is_on_the_rungs_that_were_run(full: Search) -> None:
    """A run without a loss, or with one above that at initialisation, counts as that one."""
    baseline, odd = full.variants
    assert baseline.values == (0.02, 0.05, 0.1, 1.0)
    at = {0.02: 4.5, 0.05: (4.25 + 4.375) / 2, 0.1: INITIAL, 1.0: INITIAL}
    assert sensitivity(baseline, baseline.values) == pytest.approx(sum(at.values()) / 4 - min(at.values()))
    assert common_values(full) == (0.02, 0.1)
    assert sensitivity(baseline, (0.02, 0.1)) == pytest.approx((at[0.02] + at[0.1]) / 2 - at[0.02])
    assert sensitivity(odd, (0.02, 0.1)) == pytest.approx((4.125 + 4.0) / 2 - 4.0)


def test_one_rung_has_no_sensitivity(stores: Stores) -> None:
    search = read_search(stores, "running")
    qk, qkv = search.variants
    assert sensitivity(qk, qk.values) == pytest.approx((4.0 + INITIAL) / 2 - 4.0)
    assert (common_values(search), sensitivity(qk, qk.values[:1])) == ((), None)
    assert (qkv.values, sensitivity(qkv, ()), sensitivity(qk, ())) == ((), None, None)


def test_the_largest_logit_is_the_runs_maximum(full: Search) -> None:
    found = {(run.value, run.seed): largest_logit(run) for run in full.variant("baseline").runs}
    assert found[0.02, 0] == 800.0
    assert found[0.1, 0] == math.inf
    assert found[1.0, 0] == 2.0e4
    assert largest_logit(full.variant(ODD_NAME).runs[3]) is None


def test_figures_are_drawn_from_a_search_alone(full: Search, stores: Stores) -> None:
    assert isinstance(loss_against_lr(full), Figure)
    assert isinstance(norm_heatmap(full, "baseline"), Figure)
    stable, diverged = norm_curves(full, "baseline").axes[0].lines[:3], max_attention_logit(full)
    assert [list(line.get_ydata()[:2]) for line in stable] == [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]
    lines = [line for axes in diverged.axes for line in axes.lines]
    drawn = {round(float(y), 6) for line in lines for y in line.get_ydata()}
    assert {800.0, 2.0e4, 1.0e3, 1.0e4} <= drawn
    with pytest.raises(ValueError, match="no output norms"):
        norm_curves(read_search(stores, "all-diverged"), "qk")
    with pytest.raises(KeyError):
        norm_curves(full, "qkw")


def test_norms_that_are_no_number_have_a_colour_of_their_own(full: Search) -> None:
    meshes = [its for axes in norm_heatmap(full, "baseline").axes for its in axes.collections]
    above = [mesh.get_array() > mesh.norm.vmax for mesh in meshes if isinstance(mesh, QuadMesh)]
    assert [its.filled(False).sum() for its in above if its.any()] == [2]  # fc2 of the diverged run


def test_a_runs_marker_is_at_its_loss_or_in_the_band_above(full: Search) -> None:
    axes = loss_against_lr(full).axes[0]
    marked = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_markerfacecolor() == "white")
        for line in axes.lines
        if line.get_marker() not in ("None", None)
    }
    low, high = axes.get_ylim()
    shown = {(lr, y) for lr, y, _ in marked if y < INITIAL}
    assert shown == {(0.02, 4.5), (0.05, 4.25), (0.05, 4.375)}
    above = {(lr, hollow) for lr, y, hollow in marked if y > INITIAL}
    assert above == {(0.1, True), (0.1, False), (1.0, True)}
    assert all(low < y < high for _, y, _ in marked)
    lines = [list(line.get_ydata()) for line in axes.lines if list(line.get_xdata()) == [0.02, 0.1, 0.5]]
    assert [4.5, 4.2, 6.5] in lines  # the curve
    one = (INITIAL - low) / (high - low)
    chances = [
        pytest.approx([chance * one for chance in its], abs=0.02) for its in ((0, 0.1, 0.9), (0, 0, 0.4))
    ]
    assert lines[-2:] == chances
    [band] = [its for its in axes.collections if isinstance(its, PolyCollection)]
    assert band.get_paths()[0].vertices[:, 1].max() == INITIAL  # 8 is off the axis


def test_a_run_that_was_cut_is_drawn_at_the_loss_that_was_expected_of_it(full: Search) -> None:
    axes = loss_against_lr(full).axes[1]
    [cut] = [line for line in axes.lines if line.get_marker() == "v"]
    assert (float(cut.get_xdata()[0]), float(cut.get_ydata()[0])) == (0.2, 4.75)
    assert cut.get_markerfacecolor() == "white"


def test_without_a_curve_the_line_is_through_the_means(stores: Stores) -> None:
    axes = loss_against_lr(read_search(stores, "running")).axes[0]
    assert [4.0] in [list(line.get_ydata()) for line in axes.lines if list(line.get_xdata()) == [0.02]]


def test_pyplot_with_its_global_state_is_not_used() -> None:
    folder = Path(redline.report.__file__).parent
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text())
        named = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        named |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert "matplotlib.pyplot" not in named, path.name
