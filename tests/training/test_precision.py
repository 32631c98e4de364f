"""Which number format a run computes in, and the loss scaler of fp16."""

import math
from importlib.util import find_spec

import pytest
import torch
from training_helpers import Stopped, trial_of
from training_helpers import train as plainly_train

from redline.errors import UserError
from redline.training import precision
from redline.training.build import precision_of
from redline.training.check import check
from redline.training.checkpoints import CHECKPOINT
from redline.training.module import LanguageModel
from redline.training.precision import LossScaler, check_precision, fastest_precision
from redline.training.run import run

CPU = torch.device("cpu")


@pytest.fixture
def without_bf16(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)


@pytest.fixture
def with_bf16(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)


@pytest.mark.usefixtures("without_bf16")
def test_bf16_is_refused_where_the_device_has_none(run_cfg):
    with pytest.raises(UserError, match=r"^trainer\.precision=bf16-mixed: .*allowed: fp32, auto"):
        check_precision("bf16-mixed", CPU, allow_emulated=False)
    with pytest.raises(UserError, match=r"trainer\.precision=bf16-mixed"):
        check(run_cfg("trainer.precision=bf16-mixed"))
    for asked in ("fp32", "auto"):
        check_precision(asked, CPU, allow_emulated=False)
    check_precision("bf16-mixed", CPU, allow_emulated=True)
    check(run_cfg("trainer.precision=bf16-mixed", "trainer.allow_emulated=true"))


@pytest.mark.usefixtures("with_bf16")
def test_bf16_is_accepted_where_the_device_has_it(run_cfg):
    check_precision("bf16-mixed", CPU, allow_emulated=False)
    assert precision_of(run_cfg("trainer.precision=bf16-mixed")) == "bf16-mixed"
    assert precision_of(run_cfg("trainer.precision=fp32")) == "fp32"


@pytest.mark.usefixtures("without_bf16")
def test_auto_is_fp32_where_there_is_no_bf16(run_cfg):
    assert precision_of(run_cfg("trainer.precision=auto")) == "fp32"


class Slow(torch.nn.Module):
    """Takes its time on a clock of its own."""

    def __init__(self, clock, fp32, bf16):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))
        self.clock, self.seconds = clock, {False: fp32, True: bf16}

    def forward(self, tokens_BT):
        self.clock[0] += self.seconds[torch.is_autocast_enabled("cpu")]
        return self.weight.expand(*tokens_BT.shape, 4)


@pytest.mark.parametrize(
    ("fp32", "bf16", "faster"), [(1.0, 0.5, "bf16-mixed"), (1.0, 0.95, "fp32"), (1, 2, "fp32")]
)
@pytest.mark.usefixtures("with_bf16")
def test_auto_takes_bf16_only_where_it_wins_clearly(monkeypatch, fp32, bf16, faster):
    clock = [0.0]
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    model = Slow(clock, fp32, bf16)
    assert fastest_precision(model, CPU, batch_size=2, sequence_length=3) == faster
    assert model.weight.grad is None


@pytest.mark.parametrize("asked", ["fp16-mixed", "bf16-true", "fp8"])
def test_what_the_device_cannot_is_refused_in_one_line(run_cfg, monkeypatch, asked):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx512_fp16": False})
    dtype = asked.partition("-")[0]
    with pytest.raises(
        UserError, match=rf"^trainer\.precision={asked}: this cpu has no {dtype} .*allowed: fp32"
    ):
        check(run_cfg(f"trainer.precision={asked}"))


def test_fp8_needs_its_package_and_matrices_that_the_hardware_can_multiply(run_cfg, monkeypatch):
    fp8 = ["trainer.precision=fp8", "trainer.allow_emulated=true"]
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^trainer\.precision=fp8: .*pip install 'redline\[fp8\]'"):
        check(run_cfg(*fp8))
    monkeypatch.setattr(precision, "find_spec", lambda name: name)
    with pytest.raises(
        UserError, match=r"^trainer\.precision=fp8: blocks\.0.* has 24 inputs.*multiples of 16"
    ):
        check(run_cfg(*fp8, "model.width=24"))
    with pytest.raises(UserError, match=r"^trainer\.precision=fp8: norm_strategy\.linear .*allowed"):
        check(run_cfg(*fp8, "norm=sigma_reparam"))


def train(cfg, directory):
    """The outcome, and each step's loss and gradient norm as the rules see them."""
    trial = trial_of(cfg, directory)
    outcome = trial.outcome(run(cfg, trial))
    return outcome, {step: numbers for step, *numbers in trial.watch.state_dict()["records"]}


def in_precision(asked, *more):
    return [f"trainer.precision={asked}", "trainer.allow_emulated=true", "lr=0.003", *more]


@pytest.mark.parametrize("more", [(), ("trainer.accumulate=2",), ("gradient=none",)], ids=str)
def test_fp16_trains_near_fp32_with_gradient_norms_that_are_not_scaled(run_cfg, tmp_path, more):
    fp32, expected = train(run_cfg(*in_precision("fp32", *more)), tmp_path / "fp32")
    fp16, seen = train(run_cfg(*in_precision("fp16-mixed", *more)), tmp_path / "fp16")
    assert seen != expected
    for step, numbers in expected.items():
        assert seen[step] == pytest.approx(numbers, rel=0.02)
    assert (fp16.interventions, fp32.interventions) == ({"fp16_scaler": 0}, {})
    assert fp16.val_loss == pytest.approx(fp32.val_loss, rel=0.01)


def started_at(monkeypatch, scale):
    """Every loss scaler begins with this scale."""
    init = LossScaler.__init__

    def at_scale(self, device):
        init(self, device)
        self._init_scale = scale

    monkeypatch.setattr(LossScaler, "__init__", at_scale)


def test_steps_that_overflow_because_of_the_scale_are_counted_and_no_divergence(
    run_cfg, tmp_path, monkeypatch
):
    started_at(monkeypatch, 2.0**24)
    cfg = run_cfg(*in_precision("fp16-mixed", "divergence.no_learning=null"))
    outcome, seen = train(cfg, tmp_path / "whole")
    skips = outcome.interventions["fp16_scaler"]
    assert 2 <= skips < 12
    assert outcome.reason is None
    norms = [norm for _, norm in seen.values()]
    assert norms.count(0.0) == skips, "what is not known is not reported"
    assert norms[0] == 0 < max(norms) < 10
    with pytest.raises(Stopped):
        plainly_train(cfg, tmp_path / "parts", stop_at=10)
    assert train(cfg, tmp_path / "parts")[0] == outcome
    a, b = (torch.load(tmp_path / its / CHECKPOINT, weights_only=True) for its in ("whole", "parts"))
    assert a["Fp16Precision"] == b["Fp16Precision"]
    assert all(torch.equal(weight, b["state_dict"][name]) for name, weight in a["state_dict"].items())


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_a_collapse_of_the_scale_is_judged_by_the_rules(run_cfg, tmp_path, monkeypatch, broken):
    """From step 3 on no scale helps: the scaler skips and halves, and would do so to the run's end."""

    def break_it(module):
        if module.global_step >= 3:
            next(iter(module.weights.values())).grad[0] = broken

    started_at(monkeypatch, 2.0**5)
    monkeypatch.setattr(LanguageModel, "on_after_backward", break_it)
    outcome, seen = train(run_cfg(*in_precision("fp16-mixed", "trainer.max_steps=20")), tmp_path)
    assert (outcome.reason, outcome.step) == ("non_finite", 3 + 5)
    assert [seen[step][1] for step in range(3, 9)] == [0.0] * 5 + [math.inf]
    assert all(math.isfinite(loss) for loss, _ in seen.values())


def test_a_loss_that_is_not_a_number_is_divergence_at_once_in_fp16_too(run_cfg, tmp_path):
    outcome, _ = train(run_cfg(*in_precision("fp16-mixed"), "lr=1e30"), tmp_path)
    assert outcome.reason == "non_finite"
    assert outcome.step < 5


@pytest.mark.parametrize("norm", ["baseline", "qk_cap", "sigma_reparam"])
def test_bf16_true_has_weights_in_bf16_and_trains_near_fp32(run_cfg, tmp_path, norm):
    norm = f"norm={norm}"
    fp32, expected = train(run_cfg(*in_precision("fp32", norm)), tmp_path / "fp32")
    bf16, seen = train(run_cfg(*in_precision("bf16-true", norm)), tmp_path / "bf16")
    for step, numbers in expected.items():
        assert seen[step] == pytest.approx(numbers, rel=0.1)
    assert bf16.val_loss == pytest.approx(fp32.val_loss, rel=0.02)
    weights = torch.load(tmp_path / "bf16" / CHECKPOINT, weights_only=True)["state_dict"]
    assert {its.dtype for its in weights.values() if its.is_floating_point()} == {torch.bfloat16}


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_fp8_trains_near_fp32(run_cfg, tmp_path):
    fp32, expected = train(run_cfg(*in_precision("fp32")), tmp_path / "fp32")
    fp8, seen = train(run_cfg(*in_precision("fp8")), tmp_path / "fp8")
    assert seen != expected
    for step, (loss, _) in expected.items():
        assert seen[step][0] == pytest.approx(loss, rel=0.02)
    assert fp8.val_loss == pytest.approx(fp32.val_loss, rel=0.02)
