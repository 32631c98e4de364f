"""The typed schema of the composed configuration.

Hydra merges the YAML files of ``conf/`` into these classes, so an unknown key or a wrong
type fails at composition with the key's name. Values live in the YAML files, not here.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from redline.errors import UserError

CONF = Path(__file__).with_name("conf")  # in a checkout a link to the top level's


class Positions(StrEnum):
    rope = "rope"
    learned = "learned"


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Attention(StrEnum):
    auto = "auto"
    fused = "fused"
    explicit = "explicit"


class TokenType(StrEnum):
    uint16 = "uint16"
    uint32 = "uint32"


@dataclass
class NormStrategyConfig:
    """Site -> transform (``_target_`` and its arguments), or null for the identity."""

    attn_in: Any = MISSING
    q: Any = MISSING
    k: Any = MISSING
    v: Any = MISSING
    score: Any = MISSING
    prob: Any = MISSING
    proj_out: Any = MISSING
    attn_branch: Any = MISSING
    attn_residual: Any = MISSING
    mlp_in: Any = MISSING
    fc2_out: Any = MISSING
    mlp_branch: Any = MISSING
    mlp_residual: Any = MISSING
    linear: Any = MISSING
    final: Any = MISSING


@dataclass
class ModelConfig:
    width: int = MISSING
    num_layers: int = MISSING
    num_heads: int = MISSING
    mlp_ratio: int = MISSING
    vocab_size: int = MISSING
    sequence_length: int = MISSING  # tokens
    dropout: float = MISSING
    positions: Positions = MISSING
    rope_base: float = MISSING
    init_std: float = MISSING
    attention: Attention = MISSING


@dataclass
class DataConfig:
    source: Any = MISSING  # how to read the corpus: `_target_` and its arguments
    path: Any = None  # file, folder, or a list of them
    sequence_length: int = MISSING  # tokens
    batch_size: int = MISSING  # sequences
    val_fraction: float = MISSING  # share of the text, from the corpus' end
    val_batches: int = MISSING
    token_type: TokenType = MISSING
    cache_dir: str = MISSING


@dataclass
class ScheduleConfig:
    _target_: str = MISSING
    warmup_steps: int = MISSING
    final_fraction: float = MISSING  # LR at the last step, as a share of the peak


@dataclass
class TrainerConfig:
    max_steps: int = MISSING
    precision: Precision = MISSING
    allow_emulated_bf16: bool = MISSING
    grad_clip: float | None = MISSING  # global L2 norm; null: no clipping
    accelerator: str = MISSING  # auto, cpu, gpu
    threads: int | None = MISSING  # CPU threads; null: torch's default
    checkpoint_every: int = MISSING  # steps
    keep_checkpoint: bool = MISSING  # at the end of a run
    resume: str | None = MISSING  # path of a checkpoint
    progress_bar: bool = MISSING


@dataclass
class SearchConfig:
    name: str = MISSING
    ladder: list[float] = MISSING  # peak LRs
    mlflow_ui: str | None = MISSING  # address; null: no links to it


@dataclass
class Config:
    lr: float = MISSING  # peak LR
    seed: int = MISSING
    search: SearchConfig = field(default_factory=SearchConfig)
    norm_strategy: NormStrategyConfig = field(default_factory=NormStrategyConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    monitor: dict[str, Any] = field(default_factory=dict)
    divergence: dict[str, Any] = field(default_factory=dict)
    tracker: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Make the schema known to Hydra as ``schema``, the first entry of ``conf/train.yaml``."""
    ConfigStore.instance().store(name="schema", node=Config)


@cache
def shipped(name: str) -> DictConfig:
    """One of the files of ``conf/``, without its defaults or overrides."""
    config = OmegaConf.load(CONF / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    return config


def check_keys(cfg: DictConfig, schema: type = Config, group: str = "") -> None:
    """Raise UserError for a key that the schema does not have; `+key=` on the command line lets one in."""
    known = {field.name: field.type for field in fields(schema)}
    for key in map(str, cfg):
        if key not in known:
            raise UserError(f"{group}{key}: unknown key; allowed here: {', '.join(sorted(known))}")
        if is_dataclass(known[key]):
            check_keys(cfg[key], known[key], f"{group}{key}.")  # type: ignore[arg-type]
