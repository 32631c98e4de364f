"""One step of a small model with taps on it, driven as the monitor drives them."""

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from redline.config import register
from redline.model import Transformer
from redline.monitor import Step, Tap, build_monitor
from redline.training.build import build_model

ROOT = Path(__file__).parents[2]
TAPS = sorted(path.stem for path in (ROOT / "conf/monitor/taps").glob("*.yaml"))
LINEARS = {"qkv": "attention.qkv", "proj": "attention.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
B, T, D, H, L, V = 3, 8, 16, 2, 2, 32


@functools.cache
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("train", list(overrides))


def composed(*overrides: str) -> DictConfig:
    """Of a model of a few thousand parameters."""
    cfg = copy.deepcopy(_compose(overrides))
    cfg.model.width, cfg.model.num_heads, cfg.model.num_layers = D, H, L
    cfg.model.vocab_size, cfg.data.sequence_length = V, T
    return cfg


def small_model(norm: str = "baseline", **changes: Any) -> Transformer:
    cfg = composed(f"norm={norm}")
    cfg.init.std = 0.3
    cfg.model.update(changes)
    torch.manual_seed(0)
    return build_model(cfg)


def full_taps() -> dict[str, Tap]:
    """Those of ``monitor=full``, and those for any model, by name."""
    groups = ("full", "any_model")
    return {
        name: tap
        for group in groups
        for name, tap in build_monitor(composed(f"monitor={group}").monitor).taps.items()
    }


def batch(seed: int = 1) -> Tensor:
    return torch.randint(0, V, (B, T + 1), generator=torch.Generator().manual_seed(seed))


def step(
    model: Transformer,
    taps: Sequence[Tap],
    forward: Callable[[Tensor], Tensor] | None = None,
    number: int = 0,
    between: Callable[[], Any] = lambda: None,
) -> Tensor:
    """A step that is read; the weights' gradients are left, clipped. ``between`` runs before the update."""
    tokens_BS = batch(number)
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    what = Step(number, B * T, optimizer)
    for tap in taps:
        tap.active = True
    logits_BTV = (model if forward is None else forward)(tokens_BS[:, :-1])
    loss = F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BS[:, 1:].flatten())
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for tap in taps:
            tap.before_update(what)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        between()
        optimizer.step()
        for tap in taps:
            tap.after_update(what)
            tap.active = False
    return loss.detach()


def read(model: Transformer, tap: Tap) -> dict[str, Any]:
    """What the tap gives for one step of the model: numbers, and arrays as tensors."""
    tap.attach(model)
    step(model, [tap])
    return {**{name: float(value) for name, value in tap.values.items()}, **tap.arrays}


def layered(prefix: str, sites: Sequence[str]) -> set[str]:
    return {f"{prefix}/{site}/layer_{layer:02d}" for site in sites for layer in range(L)}


def twin(model: Transformer) -> Transformer:
    return copy.deepcopy(model)
