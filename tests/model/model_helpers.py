from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from redline.model import Site, Transformer
from redline.model.transforms import LayerNorm
from redline.training.build import build_model

ROOT = Path(__file__).parents[2]
NORMS = sorted(path.stem for path in (ROOT / "conf/norm").glob("*.yaml"))
NORM_LAYERS = sorted(path.stem for path in (ROOT / "conf/norm_layer").glob("*.yaml"))
MODELS = sorted(path.stem for path in (ROOT / "conf/model").glob("[!_]*.yaml"))


def site(name: str, weight: Tensor | None = None, num_layers: int = 4, layer: int | None = 0) -> Site:
    return Site(
        name,
        width=8,
        num_heads=2,
        num_layers=num_layers,
        inner=24,
        vocab_size=32,
        norm_layer=LayerNorm,
        layer=layer,
        weight=weight,
    )


def shrink(cfg: DictConfig, init_std: float | None = None, **changes: Any) -> DictConfig:
    """A model of a few thousand parameters; ``init_std``: of its initial weights."""
    if init_std is not None:
        cfg.init.std = init_std
    cfg.model.width, cfg.model.num_heads, cfg.model.num_layers = 16, 2, 2
    cfg.model.vocab_size, cfg.data.sequence_length = 32, 8
    for key, value in changes.items():
        cfg.model[key] = value
    return cfg


def small_model(cfg: DictConfig, **changes: Any) -> Transformer:
    torch.manual_seed(0)
    return build_model(shrink(cfg, **changes))


def random_tokens(batch: int, length: int) -> Tensor:
    return torch.randint(0, 32, (batch, length), generator=torch.Generator().manual_seed(1))
