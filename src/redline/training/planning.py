"""What a run, or a search, would need, in words: `redline plan`."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig, open_dict

from redline.errors import UserError
from redline.model import named_parameters
from redline.search.policy.cost import Cost
from redline.training.build import build_model, micro_batch_size
from redline.training.compilation import earns_back
from redline.training.needs import Memory, flops_per_token, memory

_PRECISIONS = ("fp32", "bf16-mixed", "bf16-true")
_FULL = 0.9  # of a device's memory: kernels, the allocator's gaps and CUDA itself take the rest
_GIB = 2**30


def plan_text(runs: Mapping[str, DictConfig], cost: Cost | None = None) -> str:
    """What each of ``runs``, a variant by its name, needs on the device of its ``plan``; ``cost``: how many a
    search trains of each. Raises UserError.
    """
    first = next(iter(runs.values()))
    precision = _precision(first)
    largest = max(runs.values(), key=_parameters)
    return "\n".join(
        [
            *_device(first, precision),
            *_steps(runs, precision),
            "",
            *_memory(largest, precision),
            "",
            *_search(runs, precision, cost),
        ]
    )


def _precision(cfg: DictConfig) -> str:
    asked: str = cfg.trainer.precision.value
    return "bf16-mixed" if asked == "auto" else asked


def peak_flops(tflops: Mapping[str, float | None], precision: str) -> float | None:
    """Of a device, in FLOP/s; None where it has no such instructions."""
    found = tflops[precision.partition("-")[0]]
    return None if found is None else found * 1e12


def _seconds(cfg: DictConfig, model: torch.nn.Module, precision: str) -> float:
    """That a step takes on one device."""
    peak = peak_flops(cfg.plan.tflops, precision)
    if peak is None:
        raise UserError(f"trainer.precision={precision}: the device of `plan` cannot; allowed: another device=…")
    return _tokens(cfg) * flops_per_token(model, cfg.data.sequence_length) / (peak * cfg.plan.utilisation)


def _tokens(cfg: DictConfig) -> int:
    tokens: int = cfg.data.batch_size * cfg.data.sequence_length
    return tokens


def _model(cfg: DictConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return build_model(cfg)


def _parameters(cfg: DictConfig) -> int:
    return sum(its.numel() for its in _model(cfg).parameters())


def _device(cfg: DictConfig, precision: str) -> Iterator[str]:
    plan, asked = cfg.plan, cfg.trainer.precision.value
    peak = peak_flops(plan.tflops, precision) or 0.0
    yield (
        f"device: {plan.names[0]}, {plan.memory_gib:g} GiB, {peak / 1e12:g} TFLOP/s in {precision}"
        f"{' (which auto is there)' if asked == 'auto' else ''}, {plan.utilisation:.0%} of them used "
        "(device=…, plan.utilisation=…)"
    )
    yield (
        f"a step: {cfg.data.batch_size} sequences of {cfg.data.sequence_length} tokens, "
        f"{micro_batch_size(cfg)} at once; a run: {cfg.trainer.max_steps} steps, "
        f"{_tokens(cfg) * cfg.trainer.max_steps:.3g} tokens"
    )


def _steps(runs: Mapping[str, DictConfig], precision: str) -> Iterator[str]:
    table = [("", "parameters", "FLOPs a step", "seconds a step", "device-hours a run")]
    for name, cfg in runs.items():
        model = _model(cfg)
        flops = _tokens(cfg) * flops_per_token(model, cfg.data.sequence_length)
        seconds = _seconds(cfg, model, precision)
        hours = seconds * cfg.trainer.max_steps / 3600
        table.append((name, _in_words(_parameters(cfg)), f"{flops:.3g}", f"{seconds:.3g}", f"{hours:.3g}"))
    yield from _aligned(table)
    layers = len({its.layer for its in named_parameters(model)} - {None})
    _, why = earns_back("cuda", _parameters(cfg), layers, _tokens(cfg) * cfg.trainer.max_steps)
    yield f"trainer.compile={cfg.trainer.compile.value}: {why} of a run"


@dataclass(frozen=True)
class Choice:
    """A way to train. ``needed``: bytes of each device."""

    settings: str
    needed: int


def choices(kept: Memory, recomputed: Memory, devices: int) -> list[Choice]:
    """From the fastest one to that which needs the least memory."""
    fsdp = f"trainer=fsdp trainer.devices={devices}"
    return [
        Choice("one device a run", kept.peak),
        Choice("one device a run, trainer.checkpoint_activations=true", recomputed.peak),
        Choice(fsdp, kept.sharded(devices)),
        Choice(f"{fsdp} trainer.checkpoint_activations=true", recomputed.sharded(devices)),
    ]


def recommended(offered: Sequence[Choice], there: float) -> Choice | None:
    """The first that fits into ``there`` bytes of a device, with room for what is not counted."""
    return next((its for its in offered if its.needed <= _FULL * there), None)


def _memory(cfg: DictConfig, precision: str) -> Iterator[str]:
    cfg = copy.deepcopy(cfg)
    with open_dict(cfg):
        if cfg.model.get("attention") == "auto":
            cfg.model.attention = "fused"  # what auto is on a GPU
    devices = cfg.trainer.devices * cfg.trainer.num_nodes
    devices = cfg.plan.count if devices == 1 else devices
    head = ("weights", "gradients", "optimizer", "activations", "logits", "one device, ddp", f"fsdp over {devices}")
    table = [("GiB of a device", *head)]
    found: dict[tuple[str, bool], Memory] = {}
    for each in dict.fromkeys([*_PRECISIONS, precision]):
        for again in (False, True):
            its = found[each, again] = memory(cfg, each, recomputed=again)
            numbers = (its.weights, its.gradients, its.state, its.activations, its.logits, its.peak)
            name = f"{each}, recomputed" if again else each
            table.append((name, *(f"{its / _GIB:.3g}" for its in (*numbers, its.sharded(devices)))))
    yield from _aligned(table)
    yield (
        "activations: the most at a time, with the logits among them; recomputed: trainer.checkpoint_activations; "
        "one device: the most of all at a time"
    )
    best = recommended(
        choices(found[precision, False], found[precision, True], devices), cfg.plan.memory_gib * _GIB
    )
    if best is None:
        yield "recommended: fewer sequences at once (a larger trainer.accumulate): nothing above fits"
    else:
        yield (
            f"recommended: {best.settings}: {best.needed / _GIB:.3g} of {cfg.plan.memory_gib:g} GiB; "
            f"trainer=ddp trainer.devices={devices} makes one run shorter, not a search"
        )


def _search(runs: Mapping[str, DictConfig], precision: str, cost: Cost | None) -> Iterator[str]:
    steps = sum(its.trainer.max_steps for its in runs.values())
    tokens = sum(its.trainer.max_steps * _tokens(its) for its in runs.values())
    hours = sum(
        its.trainer.max_steps * _seconds(its, _model(its), precision) / 3600 for its in runs.values()
    )
    each = [("a search", cost.expected), ("the whole grid", float(cost.grid))] if cost else [("a run", 1.0)]
    for name, count in each:
        yield (
            f"{name}: {count * len(runs):.3g} runs, {count * steps:.3g} steps, {count * tokens:.3g} tokens, "
            f"{count * hours:.3g} device-hours"
        )
    if cost:
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
