"""The typed schema of the composed configuration.

Hydra merges the YAML files of ``conf/`` into these classes, so an unknown key or a wrong
type fails at composition with the key's name; `check_settings` looks at the bounds. Values live in the YAML
files, not here. What a `_target_` takes, and its bounds, stand in the signature of what it names.
"""

from dataclasses import dataclass, field, is_dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Le, Len, Lt
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from redline.bounds import Count, Positive, Seed, Share, check_value
from redline.errors import UserError

CONF = Path(__file__).with_name("conf")  # in a checkout a link to the top level's


# Not as a class: a name with a hyphen is no identifier, and OmegaConf goes by the names.
Precision = StrEnum("Precision", ["auto", "fp32", "bf16-mixed", "fp16-mixed", "bf16-true", "fp8"])


class Compile(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


class Accelerator(StrEnum):
    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class Split(StrEnum):
    text = "text"
    document = "document"


class TokenType(StrEnum):
    uint16 = "uint16"
    uint32 = "uint32"


@dataclass
class NormStrategyConfig:
    """Site -> transform (``_target_`` and its arguments, perhaps ``layers`` and ``then``), or null."""

    embed: Any = MISSING
    attn_in: Any = MISSING
    q: Any = MISSING
    k: Any = MISSING
    v: Any = MISSING
    qk_weight: Any = MISSING
    score: Any = MISSING
    softmax: Any = MISSING
    prob: Any = MISSING
    gate: Any = MISSING
    proj_in: Any = MISSING
    proj_out: Any = MISSING
    attn_branch: Any = MISSING
    attn_sum: Any = MISSING
    attn_residual: Any = MISSING
    mlp_in: Any = MISSING
    fc1_out: Any = MISSING
    fc2_in: Any = MISSING
    fc2_out: Any = MISSING
    mlp_branch: Any = MISSING
    mlp_sum: Any = MISSING
    mlp_residual: Any = MISSING
    linear: Any = MISSING
    final: Any = MISSING
    logits: Any = MISSING


@dataclass
class DataConfig:
    source: Any = MISSING  # how to read the corpus: `_target_` and its arguments
    path: Any = None  # file, folder, or a list of them
    val_path: Any = None  # the same, of data=tokens
    steps: dict[str, Any] = field(default_factory=dict)  # name -> function and its arguments, or null
    tokenizer: Any = None  # class and its arguments; null for tokens
    sequence_length: Annotated[int, Ge(1), Le(2**24)] = MISSING  # tokens
    batch_size: Annotated[int, Ge(1), Le(10**6)] = MISSING  # sequences
    split: Split = MISSING
    val_fraction: Annotated[float, Gt(0), Lt(1)] = MISSING  # share of the corpus
    val_batches: Count = MISSING
    token_type: TokenType = MISSING
    cache_dir: str = MISSING


@dataclass
class TrainerConfig:
    max_steps: Count = MISSING
    precision: Precision = MISSING
    allow_emulated: bool = MISSING
    accumulate: Annotated[int, Ge(1), Le(10**6)] = MISSING  # micro-batches of an optimizer step
    checkpoint_activations: bool = MISSING
    compile: Compile = MISSING
    accelerator: Accelerator = MISSING
    devices: Annotated[int, Ge(1), Le(1024)] = MISSING
    num_nodes: Annotated[int, Ge(1), Le(10_000)] = MISSING
    node_command: list[str] = MISSING  # words
    strategy: Any = MISSING  # `_target_` and its arguments, or null
    rank_timeout: Annotated[float, Ge(1), Le(10**6)] = MISSING  # seconds
    threads: Annotated[int, Ge(1), Le(1024)] | None = MISSING  # CPU threads; null: torch's default
    checkpoint_every: Count = MISSING  # steps
    keep_checkpoint: bool = MISSING  # at the end of a run
    dry_run: bool = MISSING
    resume: str | None = MISSING  # path of a checkpoint
    progress_bar: bool = MISSING


@dataclass
class PeakConfig:
    fp32: Positive = MISSING
    bf16: Positive = MISSING
    fp16: Positive = MISSING
    fp8: Positive | None = MISSING  # null: it has no such instructions


@dataclass
class PlanConfig:
    """A device that `redline plan` counts the hours of: one of conf/device/."""

    names: list[str] = MISSING
    memory_gib: Positive = MISSING
    tflops: PeakConfig = field(default_factory=PeakConfig)
    utilisation: Annotated[float, Gt(0), Le(1)] = MISSING
    count: Annotated[int, Ge(1), Le(10**6)] = MISSING


@dataclass
class SearchConfig:
    name: str = MISSING
    ladder: Annotated[list[Positive], Len(2, 1000)] = MISSING  # peak LRs
    mlflow_ui: str | None = MISSING  # address; null: no links to it


@dataclass
class Config:
    lr: Positive = MISSING  # peak LR
    seed: Seed = MISSING
    search: SearchConfig = field(default_factory=SearchConfig)
    task: dict[str, Any] = field(default_factory=dict)
    norm_strategy: NormStrategyConfig = field(default_factory=NormStrategyConfig)
    norm_layer: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    sites: dict[str, Any] = field(default_factory=dict)  # of a model that is not ours
    init: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    loss: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    gradient: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    monitor: dict[str, Any] = field(default_factory=dict)
    divergence: dict[str, Any] = field(default_factory=dict)
    tracker: dict[str, Any] = field(default_factory=dict)
    plan: PlanConfig = field(default_factory=PlanConfig)


def _share(share: Any, *, _root_: DictConfig) -> int:
    """``${share:0.05}``: so many steps are that share of the run; at least one where it is not zero."""
    check_value("share", share, Share)
    return max(round(share * _root_.trainer.max_steps), int(share > 0))


OmegaConf.register_new_resolver("share", _share, replace=True)


def register() -> None:
    """Make the schema known to Hydra as ``schema``, the first entry of ``conf/train.yaml``."""
    schema = OmegaConf.structured(Config)
    OmegaConf.set_struct(schema.model, False)  # keys of transformers' configurations are in no file of ours
    ConfigStore.instance().store(name="schema", node=schema)


@cache
def shipped(name: str) -> DictConfig:
    """One of the files of ``conf/``, without its defaults or overrides."""
    config = OmegaConf.load(CONF / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    return config


def check_settings(cfg: DictConfig, schema: type = Config, group: str = "") -> None:
    """Raise UserError for a key that the schema does not have, which `+key=` on the command line lets in, and
    for a value out of bounds. What a `_target_` is given is checked where it is built.
    """
    known = get_type_hints(schema, include_extras=True)
    for key in map(str, cfg):
        if key not in known:
            raise UserError(f"{group}{key}: unknown key; allowed here: {', '.join(sorted(known))}")
        if OmegaConf.is_missing(cfg, key):
            continue
        value = cfg[key]
        if is_dataclass(known[key]):
            if value is None:
                raise UserError(f"{group}{key}=null: allowed: a choice of conf/{group}{key}/")
            check_settings(value, known[key], f"{group}{key}.")
        elif OmegaConf.is_config(value):
            plain = OmegaConf.to_container(value, resolve=True, enum_to_str=True)
            check_value(f"{group}{key}", plain, known[key])
        else:
            check_value(f"{group}{key}", value, known[key])
