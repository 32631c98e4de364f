"""What a run, or a search, would need, in words: `redline plan`."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig

from redline.errors import UserError
from redline.search.policy.cost import Cost
from redline.training.build import build_model, micro_batch_size
from redline.training.compilation import earns_back
from redline.training.plan.needs import Memory, flops_per_token, memory
from redline.training.speed import peak_flops
from redline.training.trainable import Training, task_of

_PRECISIONS = ("fp32", "bf16-mixed", "bf16-true")
_FULL = 0.9  # of a device's memory: kernels, the allocator's gaps and CUDA itself take the rest
_GIB = 2**30


@dataclass(frozen=True)
class _Run:
    """Of one variant. ``flops`` and ``tokens``: of a step; ``seconds``: what one takes on one device;
    ``memory``: bytes of that.
    """

    name: str
    steps: int
    tokens: int
    parameters: int
    flops: int
    seconds: float
    memory: int
    compiling: str


def plan_text(runs: Mapping[str, DictConfig], cost: Cost | None = None, short_steps: float = 0.0) -> str:
    """What each of ``runs``, a variant by its name, needs on the device of its ``plan``. ``cost``: how many
    runs a search trains of each, beside short ones of ``short_steps`` together. Raises UserError.
    """
    for cfg in runs.values():
        if not isinstance(task_of(cfg), Training):
            raise UserError("trainer.dry_run=true: needs task=language_model, whose steps can be counted")
    cfgs = {name: _as_on_a_gpu(cfg) for name, cfg in runs.items()}
    counted = [_count(name, cfg) for name, cfg in cfgs.items()]
    largest = max(counted, key=lambda its: its.memory).name
    parts = [_setting(cfgs[largest]), _steps(counted), _memory(largest, cfgs[largest])]
    if cost is not None:
        parts.append(_together(counted, cost, short_steps))
    return "\n\n".join("\n".join(lines) for lines in parts)


def _as_on_a_gpu(cfg: DictConfig) -> DictConfig:
    """With what ``auto`` is there."""
    cfg = copy.deepcopy(cfg)
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = "bf16-mixed"
    if cfg.model.get("attention") == "auto":
        cfg.model.attention = "fused"
    return cfg


def _count(name: str, cfg: DictConfig) -> _Run:
    precision, tokens = cfg.trainer.precision.value, cfg.data.batch_size * cfg.data.sequence_length
    with torch.device("meta"):
        model = build_model(cfg)
    peak = peak_flops(cfg.plan.tflops, precision)
    if peak is None:
        raise UserError(f"trainer.precision={precision}: {cfg.plan.names[0]} cannot; allowed: another device")
    parameters, steps = sum(its.numel() for its in model.parameters()), cfg.trainer.max_steps
    flops = tokens * flops_per_token(model, cfg.data.sequence_length)
    _, why = earns_back("cuda", parameters, len(model.site_map.layers), tokens * steps)
    again = cfg.trainer.checkpoint_activations
    seconds = flops / (peak * cfg.plan.utilisation) * (4 / 3 if again else 1)  # a third is a forward pass
    needed = memory(cfg, precision, recomputed=again).peak
    return _Run(name, steps, tokens, parameters, flops, seconds, needed, why)


def _setting(cfg: DictConfig) -> Iterator[str]:
    plan, precision = cfg.plan, cfg.trainer.precision.value
    tflops = plan.tflops[precision.partition("-")[0]]
    yield (
        f"device: {plan.names[0]}, {plan.memory_gib:g} GiB, {tflops:g} TFLOP/s in {precision}; "
        f"{plan.utilisation:.0%} of that is used (device=…, plan.utilisation=…)"
    )
    yield (
        f"a step: {cfg.data.batch_size} sequences of {cfg.data.sequence_length} tokens, "
        f"{micro_batch_size(cfg)} at once on a device"
    )


def _steps(runs: Sequence[_Run]) -> Iterator[str]:
    head = ("parameters", "GiB", "FLOPs a step", "seconds a step", "steps", "tokens", "device-hours")
    table: list[tuple[str, ...]] = [("", *head)]
    for its in runs:
        tokens, hours = its.tokens * its.steps, its.seconds * its.steps / 3600
        numbers = (its.memory / _GIB, its.flops, its.seconds, its.steps, tokens, hours)
        table.append((its.name, _in_words(its.parameters), *(f"{number:.3g}" for number in numbers)))
    yield from _aligned(table)
    yield f"trainer.compile: {runs[0].compiling}"


@dataclass(frozen=True)
class Choice:
    """A way to train. ``needed``: bytes of each device."""

    settings: str
    needed: int


def choices(kept: Memory, recomputed: Memory, devices: int) -> list[Choice]:
    """From the fastest one to that which needs the least memory."""
    one, fsdp = "one device a run", f"trainer=fsdp trainer.devices={devices}"
    again = "trainer.checkpoint_activations=true"
    return [
        Choice(one, kept.peak),
        Choice(f"{one}, {again}", recomputed.peak),
        Choice(fsdp, kept.sharded(devices)),
        Choice(f"{fsdp} {again}", recomputed.sharded(devices)),
    ]


def recommended(offered: Sequence[Choice], there: float) -> Choice | None:
    """The first that fits into ``there`` bytes of a device, with room for what is not counted."""
    return next((its for its in offered if its.needed <= _FULL * there), None)


def _memory(name: str, cfg: DictConfig) -> Iterator[str]:
    asked = cfg.trainer.precision.value
    devices = cfg.trainer.devices * cfg.trainer.num_nodes
    devices = cfg.plan.count if devices == 1 else devices
    head = ("weights", "gradients", "optimizer", "activations", "logits", "one device, ddp")
    table: list[tuple[str, ...]] = [(f"GiB, {name}", *head, f"fsdp over {devices}")]
    for precision in dict.fromkeys([*_PRECISIONS, asked]):
        kept, again = (memory(cfg, precision, recomputed=each) for each in (False, True))
        for words, its in ((precision, kept), (f"{precision}, recomputed", again)):
            numbers = (its.weights, its.gradients, its.state, its.activations, its.logits, its.peak)
            table.append((words, *(f"{each / _GIB:.3g}" for each in (*numbers, its.sharded(devices)))))
        if precision == asked:
            best = recommended(choices(kept, again, devices), cfg.plan.memory_gib * _GIB)
    yield from _aligned(table)
    yield (
        "recomputed: with trainer.checkpoint_activations; activations: the most at a time, the logits among "
        "them; one device: the most of all at a time"
    )
    if best is None:
        yield "recommended: fewer sequences at once (a larger trainer.accumulate), as nothing above fits"
    else:
        yield (
            f"recommended: {best.settings}, which takes {best.needed / _GIB:.3g} of {cfg.plan.memory_gib:g} "
            f"GiB; trainer=ddp trainer.devices={devices} makes one run shorter, not a search"
        )


def _together(runs: Sequence[_Run], cost: Cost, short_steps: float) -> Iterator[str]:
    for name, count, more in (("a search", cost.expected, short_steps), ("the whole grid", cost.grid, 0.0)):
        steps = [count * its.steps + more for its in runs]
        pairs = list(zip(runs, steps, strict=True))
        tokens = sum(each * its.tokens for its, each in pairs)
        hours = sum(each * its.seconds for its, each in pairs) / 3600
        yield (
            f"{name}: about {count * len(runs):.3g} runs, {sum(steps):.3g} steps, {tokens:.3g} tokens, "
            f"{hours:.3g} device-hours"
        )
    yield "runs that diverge or are cut cost less; seeds that disagree cost more"


def _in_words(count: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)


def _aligned(table: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *others in table:
        rest = (f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True))
        yield "  ".join([f"{name:<{widths[0]}}", *rest])
