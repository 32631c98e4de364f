"""Whether a run's model is compiled, and how."""

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn
from torch.nn.utils import parametrize

from redline.errors import UserError
from redline.model import MappedModel
from redline.training.build import device_of
from redline.training.module import LanguageModel
from redline.training.strategies import FullyShard, strategy_of

_CACHE = Path("mlruns/compiled")  # shared by the trials of all searches; may be deleted
_CACHE_KEY = "TORCHINDUCTOR_CACHE_DIR"
_MARGIN = 3.0  # the time saved must be so many times what compiling takes: all numbers below are rough


@dataclass(frozen=True)
class _Gain:
    """Of a kind of device. ``speed``: model FLOP/s of a run that is not compiled; ``saved``: share of its
    time; ``seconds`` and ``per_layer``: what compiling takes, twice: a step that taps read has its own graph.
    """

    speed: float
    saved: float
    seconds: float
    per_layer: float


# CPU: a `tiny` step is 15% faster after 40 s, a `mini` one 10% after 25 s (2 cores, fp32). CUDA: estimates.
_GAINS = {"cpu": _Gain(1e11, 0.1, 10.0, 8.0), "cuda": _Gain(1e14, 0.2, 30.0, 8.0)}


def compiles(cfg: DictConfig, model: MappedModel) -> tuple[bool, str]:
    """Whether the run of ``cfg``, which trains ``model``, is compiled on the device here, and why.

    Raises UserError where it cannot be.
    """
    asked, device = cfg.trainer.compile.value, device_of(cfg).type
    missing = _missing(device) or _unfit(cfg, model)
    if asked == "always" and missing is not None:
        raise UserError(f"trainer.compile=always: {missing}; allowed: auto, never")
    if asked != "auto":
        return asked == "always", f"trainer.compile={asked}"
    if missing is not None:
        return False, missing
    tokens = cfg.data.batch_size * cfg.data.sequence_length * cfg.trainer.max_steps
    parameters = sum(its.numel() for its in model.parameters())
    return earns_back(device, parameters, len(model.site_map.layers), tokens)


def earns_back(device: str, parameters: int, layers: int, tokens: int) -> tuple[bool, str]:
    """Whether compiling saves clearly more time than it takes in a run of so many ``tokens``, and why.

    A token takes 6 FLOPs a parameter (Kaplan et al. 2020, arXiv 2001.08361).
    """
    gain = _GAINS[device]
    saved = gain.saved * 6 * parameters * tokens / gain.speed
    cost = gain.seconds + gain.per_layer * layers
    why = f"compiling would take about {cost:.0f} s and save about {saved:.0f} s"
    return saved > _MARGIN * cost, why


def _missing(device: str) -> str | None:
    """What `torch.compile` needs and does not find."""
    if device not in _GAINS:
        return f"not known to work on {device}"
    if device == "cuda" and find_spec("triton") is None:
        return "needs the package triton, which is not installed"
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return "needs a C++ compiler, and g++ (or what CXX names) is not there"
    return None


def _unfit(cfg: DictConfig, model: nn.Module) -> str | None:
    if isinstance(strategy_of(cfg), FullyShard):
        return "a model in shards (trainer=fsdp) cannot be compiled"
    made_anew = any(map(parametrize.is_parametrized, model.modules()))
    if cfg.trainer.checkpoint_activations and made_anew:
        # Sigma's vectors change in a forward pass; the compiled backward pass would begin from the changed.
        return "norm_strategy.linear and trainer.checkpoint_activations=true cannot be compiled together"
    return None


def compile_losses(module: LanguageModel, backend: str = "inductor") -> None:
    """Have ``module`` compute its losses by a compiled graph, which is made at the first step: hooks that are
    added by then, such as taps', are part of it. Validation is not compiled.

    The compiler's cache is below mlruns/ unless TORCHINDUCTOR_CACHE_DIR says where.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Importing parts of torch sets it to torch's own default.
    if os.environ.get(_CACHE_KEY) in (None, default_cache_dir()):
        os.environ[_CACHE_KEY] = str(_CACHE.absolute())
    torch.compiler.reset()  # earlier runs of this process count against the limit of recompilations
    module.losses = torch.compile(module.losses, dynamic=False, backend=backend)
