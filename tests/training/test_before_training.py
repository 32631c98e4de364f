"""What cannot work is found before any training, in one line, also in a user's own class."""

import math
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from training_helpers import train

from redline.command_line import one_line
from redline.errors import UserError
from redline.training.check import check

OWN = """
    import torch
    from torch import nn
    from redline.monitor import Tap
    from redline.training.gradients import GradientStep

    class Raises(nn.Module):
        def __init__(self, site):
            super().__init__()

        def forward(self, x):
            raise RuntimeError("not today")

    class Broken(nn.Module):
        def __init__(self, site):
            super().__init__()
            self.weight = site.nothing

    class Narrow(Raises):
        def forward(self, x):
            return x[..., :1]

    class NoSite(nn.Module):
        def __init__(self):
            super().__init__()

    class NoModule:
        def __init__(self, site):
            pass

    class Loud(Tap):
        def after_update(self, step):
            raise KeyError("a tap")

    class Grumpy(GradientStep):
        def __call__(self, gradients):
            raise ValueError("no gradients")

    class Picky(torch.optim.SGD):
        def step(self, closure=None):
            raise ValueError("no step")

    def rising(step, *, max_steps, warmup_steps, final_fraction):
        return 1.0 + step

    def gone(step, *, max_steps, warmup_steps, final_fraction):
        return float("nan")

    def late(step, *, max_steps, warmup_steps, final_fraction):
        return 1.0 / (max_steps - 1 - step)
"""
Q = "norm_strategy.q={_target_: own_parts.%s}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([Q % "Raises"], ["norm_strategy.q: ", "own_parts.py:LINE: RuntimeError: not today"]),
        ([Q % "Broken"], ["norm_strategy.q: ", "own_parts.py:LINE: AttributeError", "nothing"]),
        ([Q % "Narrow"], ["norm_strategy.q: ", "gives the shape (2, 2, 16, 1)"]),
        ([Q % "NoSite"], ["norm_strategy.q._target_=own_parts.NoSite", "first argument is the site"]),
        ([Q % "NoModule"], ["norm_strategy.q._target_=own_parts.NoModule", "torch.nn.Module"]),
        (["norm_strategy.q={_target_: os.system}"], ["norm_strategy.q._target_=os.system", "blocklisted"]),
        (["norm_strategy.q={_target_: builtins.exec}"], ["norm_strategy.q._target_=builtins.exec"]),
        (["norm_strategy.q={_target_: pathlib.Path}"], ["a subclass of torch.nn.Module"]),
        ([Q % "Missing"], ["norm_strategy.q._target_=own_parts.Missing", "allowed"]),
        (["norm=qk", "norm_strategy.q._target_=redline.model.transforms.LayerNrm"], ["LayerNrm", "allowed"]),
        (
            ["norm=qk", "+norm_strategy.q.spn=head"],
            ["norm_strategy.q.spn: unknown argument", "allowed: span"],
        ),
        (
            ["norm_strategy.q={_target_: redline.model.transforms.norm}"],
            ["norm_strategy.q.span=None", "full"],
        ),
        (["norm=qk", "+norm_strategy.q.layers=[0.5,0.5]"], ["norm_strategy.q.layers=[0.5, 0.5]", "below"]),
        (["norm=qk", "+norm_strategy.q.layers=2"], ["norm_strategy.q.layers=2", "a list of 2 to 2"]),
        (["+norm_strategy.final.layers=[0,1]"], ["norm_strategy.final.layers", "in no layer"]),
        (["+norm_strategy.mlp_in.then=3"], ["norm_strategy.mlp_in.then=3", "_target_"]),
        (
            ["+norm_strategy.mlp_in.then={_target_: redline.model.transforms.SoftCap}"],
            ["norm_strategy.mlp_in.then.cap: not set"],
        ),
        (
            ["norm=keel", "+norm_strategy.mlp_sum.then={_target_: redline.model.transforms.norm}"],
            ["norm_strategy.mlp_sum"],
        ),
        (["norm_layer.eps=0"], ["norm_layer.eps=0"]),
        (["norm_layer=rms_norm", "+norm_layer.bias=true"], ["norm_layer.bias: unknown argument", "dtype"]),
        (["+norm_layer.span=head"], ["norm_layer.span: unknown argument"]),
        (["norm_layer._target_=torch.nn.LayerNorm"], ["norm_layer._target_=torch.nn.LayerNorm", "`span`"]),
        (["norm_layer=dyt", "norm_layer.alpha=[[8,1,1]]"], ["norm_layer.alpha", "width 32"]),
        (["norm_strategy.q={_target_: redline.model.transforms.SoftCap}"], ["norm_strategy.q.cap: not set"]),
        (
            ["norm=qk", "norm_strategy.q.span={_target_: os.system, command: ls}"],
            ["norm_strategy.q.span", "no _target_"],
        ),
        (
            ["+monitor.taps.mine={_target_: own_parts.Loud}"],
            ["monitor.taps.mine: ", "own_parts.py:LINE: KeyError"],
        ),
        (
            ["~optimizer", "+optimizer={_target_: own_parts.Picky}"],
            ["optimizer: ", "own_parts.py:LINE: ValueError: no step"],
        ),
        (
            ["+gradient.mine={_target_: own_parts.Grumpy}"],
            ["gradient.mine: ", "own_parts.py:LINE: ValueError: no gradients"],
        ),
        (["gradient.clip._target_=os.system"], ["gradient.clip._target_=os.system", "GradientStep"]),
        (["+gradient.mine={max_norm: 1}"], ["gradient.mine={'max_norm': 1}: ", "GradientStep"]),
        (["~optimizer", "+optimizer={_target_: os.system}"], ["optimizer._target_=os.system"]),
        (["~optimizer", "+optimizer={}"], ["optimizer", "allowed: a subclass of torch.optim.Optimizer"]),
        (["schedule._target_=own_parts.rising"], ["schedule: gives 2.0 at step 1", "0 to 1"]),
        (["schedule._target_=own_parts.gone"], ["schedule: gives nan", "0 to 1"]),
        (["schedule._target_=own_parts.late"], ["schedule: ", "own_parts.py:LINE: ZeroDivisionError"]),
        (["schedule._target_=builtins.eval"], ["schedule._target_=builtins.eval"]),
        (["schedule._target_=shutil.rmtree"], ["schedule._target_=shutil.rmtree"]),
        (["divergence.blow_up._target_=own_parts.Loud"], ["divergence.blow_up._target_=own_parts.Loud"]),
        (["data.source._target_=subprocess.Popen"], ["data.source"]),
        (["schedule.warmup_steps=12"], ["schedule.warmup_steps=12", "less than trainer.max_steps=12"]),
        (["model.width=131072", "model.num_layers=1000"], ["model.width=131072", "GiB"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and "=" in value[-1] else "",
)
def test_what_cannot_work_is_one_line(run_cfg, tmp_path, monkeypatch, overrides, said):
    (tmp_path / "own_parts.py").write_text(textwrap.dedent(OWN).lstrip())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    with pytest.raises(UserError) as error:
        check(run_cfg(*overrides))
    message = str(error.value)
    lines = (tmp_path / "own_parts.py").read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip().startswith(("raise", "self.weight", "return 1.0 /")):
            message = message.replace(f"own_parts.py:{number}: ", "own_parts.py:LINE: ")
    assert "\n" not in message
    assert [words for words in said if words not in message] == [], message


KEYS = [
    "lr", "seed", "model.width", "model.num_layers", "model.num_heads", "model.mlp_ratio",
    "model.vocab_size", "model.sequence_length", "model.dropout", "model.positions", "model.rope_base",
    "init.std", "model.attention", "data.batch_size", "data.val_fraction", "data.val_batches",
    "data.token_type", "optimizer.betas", "optimizer.eps", "optimizer.weight_decay",
    "optimizer.independent", "schedule.warmup_steps", "schedule.final_fraction", "trainer.precision",
    "gradient.clip.max_norm", "trainer.accumulate", "trainer.checkpoint_every",
    "divergence.blow_up.patience", "divergence.blow_up.smoothing", "divergence.no_return.rise",
    "divergence.forecast", "divergence.forecaster.max_logit", "monitor.every",
]  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 3, 16, 64, 10**6, 2**40]),
    st.sampled_from([0.0, 1e-8, 0.5, 1.0, 30.0, 1e6]),
    st.floats(),
)
VALUES = st.one_of(
    NUMBERS,
    st.lists(NUMBERS, max_size=3),
    st.sampled_from([None, True, False, "", "fp32", "learned", "explicit", "uint32", "off", "end", "é\n"]),
)


@given(st.sampled_from(KEYS), VALUES)
@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck))
def test_any_value_trains_two_steps_or_is_refused_in_one_line(run_cfg, tmp_path_factory, key, value):
    cfg = run_cfg("trainer.max_steps=2", "schedule.warmup_steps=1")
    try:
        OmegaConf.update(cfg, key, value)
        check(cfg)
        outcome, _ = train(cfg, Path(tmp_path_factory.mktemp("run")))
    except (UserError, OmegaConfBaseException) as error:
        said = one_line(error)
    else:
        said = ""
        assert outcome.diverged or math.isfinite(outcome.val_loss)
    assert "\n" not in said
