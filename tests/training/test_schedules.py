"""The share of the peak LR at each step, against values written out."""

from functools import partial

import pytest
import torch
from training_helpers import ROOT

from redline.training.build import build_module
from redline.training.schedules import constant, cosine, linear

SCHEDULES = sorted(path.stem for path in (ROOT / "conf/schedule").glob("*.yaml"))
WARMUP = [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        # Steps 4 to 8, of which the first is the peak and the last the end.
        (cosine, [1.0, 0.2 + 0.8 * 0.85355339, 0.6, 0.2 + 0.8 * 0.14644661, 0.2]),
        (linear, [1.0, 0.8, 0.6, 0.4, 0.2]),
        (constant, [1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_warm_up_peak_and_end(schedule, after):
    share = partial(schedule, max_steps=9, warmup_steps=4, final_fraction=0.2)
    assert [share(step) for step in range(9)] == pytest.approx([*WARMUP, *after])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [0, 1, 20, 50])
def test_every_schedule_keeps_between_zero_and_the_peak(composed, name, warmup_steps):
    cfg = composed(f"schedule={name}")
    cfg.schedule.warmup_steps, cfg.trainer.max_steps = warmup_steps, 50
    with torch.device("meta"):
        schedule = build_module(cfg).schedule
    shares = [schedule(step) for step in range(50)]
    assert max(shares) == 1.0
    assert all(share >= 0 for share in shares)
    assert all(share > 0 for share in shares[:-1])
    if warmup_steps < 49:
        assert shares[-1] == pytest.approx(cfg.schedule.final_fraction)


def test_the_optimizer_gets_the_schedule_step_by_step(run_cfg):
    module = build_module(run_cfg("lr=0.5"))
    parts = module.configure_optimizers()
    optimizer, scheduler = parts["optimizer"], parts["lr_scheduler"]["scheduler"]
    assert parts["lr_scheduler"]["interval"] == "step"
    taken = []
    for _ in range(12):
        taken.append(optimizer.param_groups[0]["lr"])
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        scheduler.step()
    expected = [0.5 * cosine(step, max_steps=12, warmup_steps=5, final_fraction=0.1) for step in range(12)]
    assert taken == pytest.approx(expected)
