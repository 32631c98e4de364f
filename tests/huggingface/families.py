"""Every type of transformers that a file of conf/sites/ is for, as a model of a few thousand parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig
from torch import Tensor

from redline.huggingface import HuggingFace
from redline.training.build import build_model

ROOT = Path(__file__).parents[2]
NORMS = sorted(path.stem for path in (ROOT / "conf/norm").glob("*.yaml"))
MAPS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf/sites").glob("*.yaml"))}
D, H, G, K, F, V, T = 16, 4, 2, 4, 24, 32, 7
SHAPE = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": H}
GROUPED = {"num_key_value_heads": G, "intermediate_size": F}
WINDOW = {"sliding_window": 4}
WIDE = {"head_dim": 8, "query_pre_attn_scalar": 8}  # all heads together are wider than the residual stream
STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "arcee": GROUPED,
    "cohere": GROUPED,
    "gemma": {**GROUPED, "head_dim": K},
    "gemma2": {**GROUPED, **WIDE, **WINDOW},
    "gemma3_text": {**GROUPED, **WIDE, **WINDOW},
    "glm4": {**GROUPED, "head_dim": K},
    "gpt2": {"n_inner": F, **STILL, "attn_pdrop": 0.0},
    "gpt_neox": {"intermediate_size": F},
    "helium": {**GROUPED, "head_dim": K},
    "llama": GROUPED,
    "ministral": {**GROUPED, "head_dim": K, **WINDOW},
    "mistral": {**GROUPED, **WINDOW},
    "nemotron": GROUPED,
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "olmo3": {**GROUPED, **WINDOW},
    "opt": {"ffn_dim": F, "word_embed_proj_dim": D, "dropout": 0.0},
    "phi": GROUPED,
    "phi3": {**GROUPED, **STILL},
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "seed_oss": {**GROUPED, "head_dim": K, "residual_dropout": 0.0, "attention_dropout": 0.0},
    "smollm3": GROUPED,
    "starcoder2": {**GROUPED, "residual_dropout": 0.0, "embedding_dropout": 0.0, "attention_dropout": 0.0},
}
ONE_OF_EACH = ["gemma2", *(its["types"][-1] for its in MAPS.values() if "types" in its)]


def config_of(composed: Callable[..., DictConfig], family: str, *overrides: str, **more: Any) -> DictConfig:
    cfg = composed("model=huggingface", *overrides)
    cfg.model.type, cfg.model.vocab_size, cfg.data.sequence_length = family, V, 8
    cfg.model.overrides = {**SHAPE, **FAMILIES[family], **more}
    return cfg


def small(composed: Callable[..., DictConfig], family: str, *overrides: str, **more: Any) -> HuggingFace:
    torch.manual_seed(0)
    model = build_model(config_of(composed, family, *overrides, **more))
    assert isinstance(model, HuggingFace)
    return larger(model)


def larger(model: Any) -> Any:
    """With matrices so large that what acts on their products shows, and gains that are not all alike."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(10)
            elif weight.ndim:
                weight.add_(torch.rand(weight.shape, generator=generator) - 0.5)
    return model


def tokens(batch: int = 3, length: int = T) -> Tensor:
    return torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(1))
