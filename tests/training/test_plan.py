"""What `redline plan` says of operations and memory, against what torch counts of the same step."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from redline.model import named_parameters
from redline.search.policy.cost import Cost
from redline.training.build import build_model, build_module, micro_batch_size
from redline.training.losses import total
from redline.training.plan.needs import Memory, flops_per_token, memory
from redline.training.plan.text import choices, plan_text, recommended


@pytest.mark.parametrize("norm", ["baseline", "qkv", "gated"])
def test_operations_are_those_that_torch_counts(run_cfg, norm):
    model = build_model(run_cfg(f"norm={norm}", "model.attention=explicit"))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 16, dtype=torch.int64)).sum().backward()
    assert flops_per_token(model, 16) * 2 * 16 == counter.get_total_flops()


def most_allocated(cfg, precision):
    """By torch's allocator: of two steps, the second of which finds the optimizer's state there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        module = build_module(cfg)
        if precision == "bf16-true":
            module.model.to(torch.bfloat16)
        optimizer = module.make_optimizer(named_parameters(module.model), 1e-3)
        for _ in range(2):
            for _ in range(cfg.trainer.accumulate):
                tokens_BS = torch.zeros(
                    micro_batch_size(cfg), cfg.data.sequence_length + 1, dtype=torch.int64
                )
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                    _, addends = module.losses(module.model, module.terms, tokens_BS)
                    loss = total(addends)
                del addends
                loss.backward()
                del loss
            optimizer.step()
            optimizer.zero_grad()
    events = [its for its in profiler.profiler.kineto_results.events() if its.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda its: its.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


@pytest.mark.parametrize(
    ("precision", "keys"),
    [
        ("fp32", ("data.batch_size=8",)),
        ("bf16-mixed", ("norm=qk_cap", "trainer.checkpoint_activations=true")),
        ("bf16-true", ("norm=gated", "trainer.accumulate=2")),
        ("fp32", ("norm=sigma_reparam", "optimizer=adafactor", "loss=z_loss", "trainer.accumulate=4")),
        ("fp32", ("optimizer=muon", "data.batch_size=1")),
    ],
)
def test_memory_is_what_the_allocator_gives(run_cfg, precision, keys):
    cfg = run_cfg("model.width=128", "model.num_layers=3", *keys)
    found = memory(cfg, precision, recomputed=cfg.trainer.checkpoint_activations)
    assert found.peak == pytest.approx(most_allocated(cfg, precision), rel=0.15)


def test_memory_by_its_parts(run_cfg):
    cfg = run_cfg("data.batch_size=2")
    parameters = sum(its.numel() for its in build_model(cfg).parameters())
    buffers = sum(its.nbytes for its in build_model(cfg).buffers())
    found = memory(cfg, "fp32", recomputed=False)
    assert found.weights == 4 * parameters + buffers
    assert found.gradients == 4 * parameters
    assert found.state == pytest.approx(8 * parameters, rel=0.01)  # Adam's two means, and its counts
    assert found.logits >= 4 * 2 * 16 * 300
    width, inner = 32, 128
    assert found.block == 4 * (4 * width * width + 2 * width * inner + 2 * width)
    assert found.rest == 4 * (2 * 300 * width + width)
    assert memory(cfg, "fp32", recomputed=True).activations < found.activations
    # An optimizer that picks numbers by their size, which there are none of.
    assert memory(run_cfg("optimizer=spam"), "fp32", recomputed=False).state == 8 * parameters


KEPT = Memory(weights=8, gradients=8, state=16, activations=100, logits=0, peak=130, block=1, rest=2)
AGAIN = Memory(weights=8, gradients=8, state=16, activations=40, logits=0, peak=70, block=1, rest=2)


def test_shards_hold_their_part_of_all_but_activations():
    assert KEPT.sharded(8) == (8 + 8 + 16) // 8 + 100 + 3 * 1 + 2 * 2


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (145, "one device a run"),
        (140, "one device a run, trainer.checkpoint_activations=true"),  # before several devices a run
        (80, "one device a run, trainer.checkpoint_activations=true"),
        (60, "trainer=fsdp trainer.devices=8 trainer.checkpoint_activations=true"),
        (50, None),
    ],
)
def test_the_fastest_way_that_fits_is_recommended(there, words):
    offered = choices(KEPT, AGAIN, 8)
    found = recommended(offered, there)
    assert (None if found is None else found.settings) == words


def test_a_plan_counts_a_search_on_a_device(run_cfg):
    runs = {
        norm: run_cfg(f"norm={norm}", "trainer.max_steps=1000", "device=a100") for norm in ("baseline", "qk")
    }
    text = plan_text(runs, Cost(expected=5.0, fewest=4, most=8, grid=12))
    flops = 4 * 16 * flops_per_token(build_model(runs["qk"]), 16)
    hours = 2 * 5 * 1000 * flops / (19.5e12 * 0.4) / 3600  # fp32
    assert "device: NVIDIA A100-SXM4-80GB, 79 GiB, 19.5 TFLOP/s in fp32; 40% of that is used" in text
    assert f"a search: about 10 runs, 1e+04 steps, 6.4e+05 tokens, {hours:.3g} device-hours" in text
    assert f"the whole grid: about 24 runs, 2.4e+04 steps, 1.54e+06 tokens, {2.4 * hours:.3g} dev" in text
    assert "recommended: one device a run, which takes" in text
