"""Compiled runs, and runs whose blocks are computed again in the backward pass: the same numbers."""

import os
from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir
from training_helpers import train

from redline.errors import UserError
from redline.monitor import Tap
from redline.training import run as run_module
from redline.training.build import build_model, build_module
from redline.training.check import check
from redline.training.checkpoints import CHECKPOINT
from redline.training.compilation import compile_losses, compiles, earns_back

SHORT = ("model.num_layers=1", "trainer.max_steps=8", "schedule.warmup_steps=2", "monitor.every=3")


@pytest.fixture
def counter(monkeypatch):
    """Has runs compile by a backend that takes no C++ compiler; counts the graphs."""
    counter = CompileCounter()
    monkeypatch.setattr(run_module, "compile_losses", partial(compile_losses, backend=counter))
    return counter


@pytest.mark.parametrize(
    ("keys", "graphs"),
    [
        # A step that taps read, and one that they do not.
        (("norm=sigma_reparam", "loss=z_loss"), 2),
        # Taps in a block that is computed again break the first of the two into parts.
        (("norm=qk", "trainer.checkpoint_activations=true"), None),
    ],
)
def test_a_compiled_run_has_the_same_losses_and_is_compiled_in_its_first_steps_only(
    run_cfg, tmp_path, counter, keys, graphs
):
    counts = []
    _, plain = train(run_cfg(*SHORT, *keys, "trainer.compile=never"), tmp_path / "plain")
    assert counter.frame_count == 0
    _, compiled = train(
        run_cfg(*SHORT, *keys, "trainer.compile=always"),
        tmp_path / "compiled",
        also=lambda progress: counts.append(counter.frame_count),
    )
    assert compiled == pytest.approx(plain, rel=1e-5)
    # The second reading of the taps is at step 3.
    assert set(counts[4:]) == {graphs or counts[4]}, counts


@pytest.mark.parametrize("asked", [None, default_cache_dir(), "/somewhere"])
def test_the_compilers_cache_is_shared_by_trials(run_cfg, tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    key = "TORCHINDUCTOR_CACHE_DIR"
    monkeypatch.setenv(key, asked or "")
    if asked is None:
        monkeypatch.delenv(key)
    compile_losses(build_module(run_cfg()), backend="eager")
    expected = asked if asked == "/somewhere" else str(tmp_path / "mlruns/compiled")
    assert cache_dir() == expected == os.environ[key]


def test_a_compiled_run_goes_on_compiled(run_cfg, tmp_path, counter):
    cfg = run_cfg(*SHORT, "trainer.compile=always", "schedule=constant")
    train(cfg, tmp_path)
    # As `auto` may say of the longer run, or of another machine.
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["redline"]["compiled"]
    counter.frame_count = 0
    cfg.trainer.max_steps = 10
    train(cfg, tmp_path)
    assert counter.frame_count > 0


@pytest.mark.parametrize(
    ("device", "parameters", "layers", "tokens", "expected"),
    [
        ("cpu", 525_376, 8, 16 * 64 * 400, False),  # the default
        ("cpu", 525_376, 8, 16 * 64 * 400_000, True),
        ("cuda", 7_000_000, 6, 16 * 256 * 400, False),
        ("cuda", 124_000_000, 12, 480 * 1024 * 2500, True),
    ],
)
def test_auto_compiles_where_a_run_is_long_enough(device, parameters, layers, tokens, expected):
    earns, why = earns_back(device, parameters, layers, tokens)
    assert earns is expected
    assert "s and save about" in why


def test_a_compiler_that_is_missing_is_a_reason_or_a_mistake(run_cfg, monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    cfg = run_cfg("trainer.max_steps=1000000000")
    assert compiles(cfg, build_model(cfg)) == (
        False,
        "needs a C++ compiler, and g++ (or what CXX names) is not there",
    )
    with pytest.raises(UserError, match=r"^trainer.compile=always: needs a C\+\+ compiler"):
        check(run_cfg("trainer.compile=always"))


def test_what_cannot_be_compiled_is_told_before_training(run_cfg):
    keys = ("norm=sigma_reparam", "trainer.checkpoint_activations=true")
    with pytest.raises(UserError, match=r"^trainer.compile=always: norm_strategy"):
        check(run_cfg(*keys, "trainer.compile=always"))
    check(run_cfg(*keys))


# Each of these changes something in a forward pass, draws random numbers, or counts what passes.
@pytest.mark.parametrize(
    "keys",
    [
        ("model.dropout=0.3", "model.attention_dropout=0.2"),
        ("norm=sigma_reparam",),
        ("norm_layer=batch_norm",),
        ("norm=qk_clip", "norm_strategy.qk_weight.tau=0.01", "trainer.accumulate=2"),
        ("loss=attention_entropy", "loss.attention_entropy.minimum=10"),
    ],
    ids=" ".join,
)
def test_blocks_that_are_computed_twice_give_the_same_run_to_the_bit(run_cfg, tmp_path, keys):
    keys = ("trainer.max_steps=4", "schedule.warmup_steps=2", "model.num_layers=2", "monitor=off", *keys)
    kept, losses = train(run_cfg(*keys), tmp_path / "kept")
    again, twice = train(run_cfg(*keys, "trainer.checkpoint_activations=true"), tmp_path / "again")
    assert twice == losses
    assert again.val_loss == kept.val_loss


class Counting(Tap):
    """How often a block's linear is seen."""

    calls = 0

    def attach(self, model):
        model.blocks[0].mlp.fc1.register_forward_hook(self._count)

    def _count(self, *_):
        self.calls += self.active


def test_a_tap_does_not_see_a_block_twice(run_cfg):
    module = build_module(run_cfg("trainer.checkpoint_activations=true"))
    passes, tap = [], Counting()
    module.model.blocks[0].mlp.fc1.register_forward_hook(lambda *_: passes.append(1))
    tap.attach(module.model)
    tap.active = True
    module.training_step(torch.randint(300, (2, 17)), 0).backward()
    assert (len(passes), tap.calls) == (2, 1)
