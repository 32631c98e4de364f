"""The share of the peak LR at each step, against values written out."""

import re
from functools import partial

import pytest
import torch
from omegaconf.errors import OmegaConfBaseException
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LinearLR
from training_helpers import ROOT

from redline.command_line import one_line
from redline.errors import UserError
from redline.training.build import build_module
from redline.training.check import check_parts
from redline.training.schedules import (
    build_schedule,
    constant,
    cosine,
    cosine_restarts,
    inverse_sqrt,
    linear,
    wsd,
)
from redline.training.settings import deciding_settings
from redline.training.trainable import Training

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


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        # Steps 4 to 8; 4 is the warm-up's last, counted from 1.
        (inverse_sqrt, [(4 / 5) ** 0.5, (4 / 6) ** 0.5, (4 / 7) ** 0.5, (4 / 8) ** 0.5, (4 / 9) ** 0.5]),
        (partial(wsd, decay_steps=2, shape="linear", final_fraction=0.2), [1.0, 1.0, 1.0, 0.6, 0.2]),
        (
            partial(wsd, decay_steps=4, shape="sqrt", final_fraction=0.2),
            [1.0, 0.6, 1 - 0.8 * 0.5**0.5, 1 - 0.8 * 0.75**0.5, 0.2],
        ),
        # A decay that is longer than what the warm-up leaves.
        (partial(wsd, decay_steps=7, shape="linear", final_fraction=0.2), [1.0, 0.8, 0.6, 0.4, 0.2]),
        (
            partial(cosine_restarts, period=2, growth=1, final_fraction=0.2),
            [1.0, 0.6, 1.0, 0.6, 1.0],
        ),
    ],
)
def test_the_other_schedules_likewise(schedule, after):
    share = partial(schedule, max_steps=9, warmup_steps=4)
    assert [share(step) for step in range(9)] == pytest.approx([*WARMUP, *after])


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_restarts_are_torchs(growth):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    torchs = CosineAnnealingWarmRestarts(optimizer, T_0=5, T_mult=growth, eta_min=0.1)
    for step in range(100):
        ours = cosine_restarts(
            step + 7, max_steps=107, warmup_steps=7, period=5, growth=growth, final_fraction=0.1
        )
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12), step
        optimizer.step()
        torchs.step()


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (cosine, lambda optimizer: CosineAnnealingLR(optimizer, T_max=40, eta_min=0.1)),
        (linear, lambda optimizer: LinearLR(optimizer, 1.0, 0.1, total_iters=40)),
    ],
)
def test_cosine_and_line_are_torchs(ours, torchs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    reference = torchs(optimizer)
    for step in range(41):
        share = ours(step + 7, max_steps=48, warmup_steps=7, final_fraction=0.1)
        assert share == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        reference.step()


def test_a_warm_up_may_be_a_share_of_the_run(run_cfg):
    cfg = run_cfg("schedule.warmup_steps=${share:0.25}")
    assert (cfg.schedule.warmup_steps, cfg.divergence.blow_up.warmup_steps) == (3, 3)
    check_parts(cfg)
    assert build_schedule(cfg)(2) == 1.0
    short = Training(cfg).shortened(8)
    assert (short.cfg.trainer.max_steps, short.cfg.schedule.warmup_steps) == (8, 3), "the whole run's"
    assert deciding_settings(cfg)["schedule"]["warmup_steps"] == 3
    cfg.trainer.max_steps = 100
    assert (cfg.schedule.warmup_steps, cfg.divergence.forecaster.warmup_steps) == (25, 25)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "schedule.warmup_steps=0.05",
            r"schedule\.warmup_steps=0\.05: allowed: whole steps.*\$\{share:0\.05\}",
        ),
        ("schedule.warmup_steps=${share:1.5}", r"share=1\.5: allowed: a number from 0 to 1"),
        (
            "schedule.warmup_steps=${share:1}",
            r"schedule\.warmup_steps=12: allowed: less than trainer\.max_steps",
        ),
        ("schedule=wsd schedule.shape=round", r"schedule\.shape=round: allowed: linear, sqrt"),
        ("schedule=cosine_restarts schedule.period=0", r"schedule\.period=0: allowed: a whole number"),
    ],
)
def test_a_mistake_in_a_schedule_is_one_line(run_cfg, override, said):
    with pytest.raises((UserError, OmegaConfBaseException)) as error:
        check_parts(run_cfg(*override.split()))
    assert re.search(said, one_line(error.value)), one_line(error.value)


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
    if warmup_steps < 49 and name not in ("inverse_sqrt", "cosine_restarts"):
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
