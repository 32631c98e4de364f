"""What is done to gradients, against torch, a package, and formulas computed by hand."""

import csv
import math
from statistics import fmean, pstdev, stdev

import pytest
import torch
from torch import nn
from training_helpers import Stopped, train

from redline.metrics import TRAIN_LOSS, intervention
from redline.training.checkpoints import CHECKPOINT
from redline.training.gradients import (
    AdaGC,
    Clip,
    ClipValue,
    GradientSteps,
    SkipNonFinite,
    SkipOutliers,
    ZClip,
    global_norm,
)


def parameters(*gradients):
    found = {}
    for index, gradient in enumerate(gradients):
        found[str(index)] = nn.Parameter(torch.zeros(len(gradient)))
        found[str(index)].grad = torch.tensor(gradient)
    return found


def grads(its):
    return [None if one.grad is None else one.grad.tolist() for one in its.values()]


def applied(steps, *gradients, loss=1.0):
    """The norm before, and the gradients after."""
    its = parameters(*gradients)
    return steps(its, torch.tensor(loss)).item(), grads(its)


def norms_after(step, norms):
    """Of a gradient of one tensor with each of these norms in turn."""
    steps = GradientSteps({"it": step})
    after = [applied(steps, [0.6 * norm, 0.8 * norm])[1][0] for norm in norms]
    return [None if its is None else math.hypot(*its) for its in after], steps


def test_clip_is_torchs_to_the_bit():
    torch.manual_seed(0)
    ours, theirs = ([nn.Parameter(torch.zeros(7, 5)), nn.Parameter(torch.zeros(3))] for _ in range(2))
    for a, b in zip(ours, theirs, strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    norm = GradientSteps({"clip": Clip(1.0)})(dict(enumerate(ours)), torch.tensor(1.0))
    assert torch.equal(norm, nn.utils.clip_grad_norm_(theirs, 1.0))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


def test_steps_act_in_order_and_the_norm_is_that_before_any():
    values = {"value": ClipValue(3.0), "clip": Clip(1.0)}
    norm, (after,) = applied(GradientSteps(values), [-6.0, 8.0])
    assert norm == pytest.approx(10)
    assert after == pytest.approx([-(2**-0.5), 2**-0.5], rel=1e-5)
    norm, (after,) = applied(GradientSteps(dict(reversed(values.items()))), [-6.0, 8.0])
    assert (norm, after) == (10, pytest.approx([-0.6, 0.8], rel=1e-5))
    assert applied(GradientSteps({}), [3.0], [4.0]) == (5.0, [[3.0], [4.0]])


def test_the_norm_is_in_fp32_also_of_gradients_that_are_not():
    gradients = [torch.full((1000,), 0.1, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16)]
    exact = math.sqrt(sum(its.double().square().sum().item() for its in gradients))
    assert global_norm(gradients).item() == pytest.approx(exact, rel=1e-6)


def test_zclip_by_hand():
    """Kumar et al. 2025: z = (g - mean) / sigma; above z_max it becomes mean + sigma * z_max^2 / z."""
    norms = [1.0, 1.2, 0.9, 1.1, 1.0, 9.0, 1.3, 1.05]
    mean, variance = fmean(norms[:4]), pstdev(norms[:4]) ** 2
    expected = norms[:4]
    spikes = 0
    for norm in norms[4:]:
        z = (norm - mean) / (math.sqrt(variance) + 1e-6)
        spikes += z > 2.5
        used = mean + 2.5**2 / z * math.sqrt(variance) if z > 2.5 else norm
        mean = 0.97 * mean + 0.03 * used
        variance = 0.97 * variance + 0.03 * (used - mean) ** 2
        expected.append(used)
    after, steps = norms_after(ZClip(z_max=2.5, beta=0.97, warmup_steps=4, eps=1e-6), norms)
    assert after == pytest.approx(expected, rel=1e-4)
    assert spikes == steps.counts["it"].item() == 1
    assert steps.steps["it"].variance.item() == pytest.approx(variance, rel=1e-4)


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_stays_in_no_running_statistic(broken):
    norms = [1.0, 1.2, broken, 1.1, broken, 1.0, 5.0]
    zclip = ZClip(z_max=2.5, beta=0.97, warmup_steps=4, eps=1e-6)
    after, steps = norms_after(zclip, norms)
    assert math.isfinite(zclip.mean)
    assert after[-1] < 2
    assert steps.counts["it"] == 1, "it was none of its making"
    adagc = AdaGC(ratio=1.05, beta=0.98, warmup_steps=2, warmup_norm=1.0, eps=1e-8)
    assert norms_after(adagc, norms)[0][-1] < 2
    late = AdaGC(ratio=1.05, beta=0.98, warmup_steps=2, warmup_norm=1.0, eps=1e-8)
    assert norms_after(late, [broken, broken, 1.0, 5.0])[0][-1] == pytest.approx(1.05, rel=1e-4)
    skip = SkipOutliers(sigmas=6, window=8)
    skipped = [its is None for its in norms_after(skip, norms)[0]]
    assert skipped == [*(not math.isfinite(norm) for norm in norms[:-1]), True]


def test_adagc_is_the_packages():
    """Against pytorch-optimizer's, whose clipping is inside its Adam."""
    package = pytest.importorskip("pytorch_optimizer")
    torch.manual_seed(0)
    ours, theirs = ([nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(5))] for _ in range(2))
    adam = torch.optim.Adam(ours, lr=0.1, betas=(0.9, 0.95))
    reference = package.AdaGC(theirs, lr=0.1, betas=(0.9, 0.95), warmup_steps=5, weight_decay=0.0)
    steps = GradientSteps({"adagc": AdaGC(1.05, 0.98, warmup_steps=5, warmup_norm=1.0, eps=1e-8)})
    for step in range(20):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a) * (20.0 if step in (3, 12) else 1.0)
            b.grad = a.grad.clone()
        steps(dict(enumerate(ours)), torch.tensor(1.0))
        adam.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_adagc_by_hand():
    """A tensor's clipped norm is at most 1.05 times the running mean of the clipped norms before."""
    norms = [0.8, 0.5, 0.9, 0.5, 8.0, 0.1]
    mean, expected = 0.5, [0.8, 0.5]  # the smallest of the two steps of warm-up
    for norm in norms[2:]:
        expected.append(min(norm, 1.05 * mean))
        mean = 0.98 * mean + 0.02 * expected[-1]
    after, _ = norms_after(AdaGC(1.05, 0.98, warmup_steps=3, warmup_norm=1.0, eps=1e-8), norms)
    assert after == pytest.approx(expected, rel=1e-4)


def test_skip_outliers_by_hand():
    """As OLMo-core: above the mean of the last `window` values by more than `sigmas` of their deviation, once
    half of them are known.
    """
    losses = [1.0, 9.0, 1.2, 0.9, 1.1, 1.0, 1.05, 0.95, 30.0, 1.0, 1.1, 0.9, 1.0, 1.1, 80.0, 1.0]
    expected = []
    for step, loss in enumerate(losses):
        before = losses[max(0, step - 8) : step]
        expected.append(len(before) >= 3 and loss - fmean(before) > 3 * stdev(before))
    assert sum(expected) == 2
    steps = GradientSteps({"it": SkipOutliers(sigmas=3, window=8)})
    assert [applied(steps, [1.0], loss=loss)[1] == [None] for loss in losses] == expected
    assert steps.counts["it"] == 2
    by_norm = norms_after(SkipOutliers(sigmas=3, window=8), losses)[0]
    assert [its is None for its in by_norm] == expected


def test_a_skipped_step_changes_neither_weights_nor_the_optimizers_means():
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    after = AdaGC(1.05, 0.98, warmup_steps=9, warmup_norm=1.0, eps=1e-8)
    steps = GradientSteps({"skip": SkipNonFinite(), "adagc": after})
    for gradient in (1.0, math.nan, math.inf):
        weight.grad = torch.full((3,), gradient)
        before = weight.detach().clone()
        norm = steps({"weight": weight}, torch.tensor(1.0))
        optimizer.step()
        assert torch.equal(weight, before) == (not math.isfinite(gradient))
    assert norm == math.inf, "the rules see it"
    assert optimizer.state[weight]["step"] == 1
    assert (steps.counts, after.steps) == ({"skip": 2}, 1)
    weight.grad = torch.ones(3)
    steps({"weight": weight}, torch.tensor(math.nan))
    assert weight.grad is None


SEVERAL = "gradient=[adagc,zclip,skip_outliers,skip_non_finite,clip]"
EAGER = [
    SEVERAL,
    *["gradient.adagc.warmup_steps=2", "gradient.zclip.warmup_steps=4", "gradient.zclip.z_max=0.1"],
    *["gradient.skip_outliers.window=8", "gradient.skip_outliers.sigmas=0.1"],
]


def rows(directory):
    """What the tracker `csv` wrote."""
    (path,) = directory.glob("csv/**/metrics.csv")
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_run_counts_and_logs_what_may_hide_divergence_and_resumes_it(run_cfg, tmp_path):
    cfg = run_cfg(*EAGER)
    logged = run_cfg(*EAGER, "tracker=csv", f"tracker.csv.save_dir={tmp_path}/csv")
    whole, losses = train(logged, tmp_path / "whole")
    assert whole.interventions.keys() == {"zclip", "skip_outliers", "skip_non_finite"}
    assert whole.interventions["zclip"] > 0 < whole.interventions["skip_outliers"]
    last = [row for row in rows(tmp_path) if row[TRAIN_LOSS]][-1]
    for name, count in whole.interventions.items():
        assert float(last[intervention(name)]) == count
    with pytest.raises(Stopped):
        train(cfg, tmp_path / "parts", stop_at=9)
    resumed, rest = train(cfg, tmp_path / "parts")
    assert resumed == whole
    assert rest == {step: loss for step, loss in losses.items() if step >= 8}
    a, b = (torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "parts"))
    assert str(a["gradient"]) == str(b["gradient"])
    for name, weight in a["state_dict"].items():
        assert torch.equal(weight, b["state_dict"][name])
