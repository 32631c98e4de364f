"""From the composed configuration to the objects of a run."""

import shutil
from functools import partial
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Len
from omegaconf import DictConfig, OmegaConf
from torch import nn

from redline.bounds import check_value, shown
from redline.errors import UserError
from redline.model import OUTSIDE, SITES, MappedModel, Transform, recompute
from redline.monitor import Monitor
from redline.monitor import build_monitor as monitor_of
from redline.parts import Kind, find_part, has_parameters, returns, subclass_of
from redline.training.gradients import GradientStep, GradientSteps
from redline.training.losses import Term
from redline.training.module import LanguageModel
from redline.training.optimizers import optimizer_from
from redline.training.precision import check_precision, fastest_precision
from redline.training.schedules import build_schedule

_TRANSFORM = Kind(
    "a subclass of torch.nn.Module whose first argument is the site", returns(nn.Module), positional=1
)
_NORM_LAYER = Kind(
    "a subclass of torch.nn.Module with the arguments `site` and `span`",
    lambda target: subclass_of(nn.Module)(target) and has_parameters("span")(target),
    positional=1,
    named=("span",),
)
_NORM = {"_target_": "redline.model.transforms.norm"}
_MODEL = Kind(
    "a subclass of redline.model.MappedModel with the arguments `transforms`, `norm_layer` and `init`",
    lambda target: (
        subclass_of(MappedModel)(target) and has_parameters("transforms", "norm_layer", "init")(target)
    ),
    positional=3,
)
_TERM = Kind("a subclass of redline.training.losses.Term", subclass_of(Term))
_INIT = Kind(
    "a function of `named` and `num_layers`",
    has_parameters("named", "num_layers"),
    positional=2,
)
_Depths = Annotated[list[Annotated[float, Ge(0), Le(1)]], Len(2, 2)]
_GRADIENT = Kind("a subclass of redline.training.gradients.GradientStep", subclass_of(GradientStep))


def build_model(cfg: DictConfig) -> MappedModel:
    """The model of ``cfg``, on torch's current default device."""
    transforms = {}
    for site in SITES:
        if OmegaConf.is_missing(cfg.norm_strategy, site):
            raise UserError(
                f"norm_strategy.{site}: not set; begin the variant's YAML with `defaults: [baseline, _self_]`"
            )
        transforms[site] = _transforms(site, cfg.norm_strategy[site])
    norm_layer = find_part("norm_layer", cfg.norm_layer, _NORM_LAYER) if cfg.norm_layer else None
    init = find_part("init", cfg.init, _INIT) if cfg.init else None
    model: MappedModel = _make_model(cfg)(transforms, norm_layer, init)
    return model


def _make_model(cfg: DictConfig) -> partial[Any]:
    spec: Any = OmegaConf.to_container(cfg.model, resolve=True)
    return find_part("model", {**spec, "sequence_length": cfg.data.sequence_length}, _MODEL)


def small_model(cfg: DictConfig) -> dict[str, Any]:
    """``cfg.model`` for a model of one layer: see `MappedModel.small`."""
    spec: Any = OmegaConf.to_container(cfg.model, resolve=True)
    target: type[MappedModel] = _make_model(cfg).args[1]
    return target.small(spec)


def _transforms(site: str, spec: Any) -> list[Transform]:
    """``spec``: null, or `_target_`, its arguments, and perhaps ``layers`` and ``then``, another spec."""
    key = f"norm_strategy.{site}"
    spec = OmegaConf.to_container(spec, resolve=True) if OmegaConf.is_config(spec) else spec
    found = []
    while spec is not None:
        arguments = dict(spec) if isinstance(spec, dict) else spec
        spec, layers = None, None
        if isinstance(arguments, dict):
            spec = arguments.pop("then", None)
            layers = (
                _layers(f"{key}.layers", site, arguments.pop("layers")) if "layers" in arguments else None
            )
        is_norm = arguments == _NORM and layers is None
        found.append(Transform(find_part(key, arguments, _TRANSFORM), layers, is_norm))
        key += ".then"
    return found


def _layers(key: str, site: str, layers: Any) -> tuple[float, float]:
    check_value(key, layers, _Depths)
    if site in OUTSIDE:
        raise UserError(f"{key}: this site is in no layer; allowed: no such key")
    low, high = layers
    if low >= high:
        raise UserError(f"{key}={shown(layers)}: allowed: shares of the depth, the first below the second")
    return low, high


def count_parameters(cfg: DictConfig) -> int:
    """Of the whole model, embeddings included; costs no memory for weights."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(cfg).parameters())


def build_module(cfg: DictConfig) -> LanguageModel:
    """The model with its loss, optimizer and schedule; its weights depend on ``cfg.seed`` alone."""
    torch.manual_seed(cfg.seed)
    model = build_model(cfg)
    if cfg.trainer.checkpoint_activations:
        for layer in model.site_map.layers:
            recompute(layer.block)
    return LanguageModel(
        model,
        lr=cfg.lr,
        terms=build_terms(cfg),
        optimizer=optimizer_from(cfg.optimizer),
        schedule=build_schedule(cfg),
        gradient=build_gradient(cfg),
        accumulate=cfg.trainer.accumulate,
    )


def build_terms(cfg: DictConfig) -> dict[str, Term]:
    """The terms of the training loss, by name."""
    terms = {
        name: find_part(f"loss.{name}", spec, _TERM)() for name, spec in cfg.loss.items() if spec is not None
    }
    if not terms:
        raise UserError("loss: has no term; allowed: one or more of conf/loss/")
    return terms


def build_gradient(cfg: DictConfig) -> GradientSteps:
    """What is done to gradients before the optimizer's step."""
    return GradientSteps(
        {
            str(name): find_part(f"gradient.{name}", spec, _GRADIENT)()
            for name, spec in cfg.gradient.items()
            if spec is not None
        }
    )


def build_monitor(cfg: DictConfig) -> Monitor:
    return monitor_of(cfg.monitor)


def device_of(cfg: DictConfig) -> torch.device:
    """The device that ``trainer.accelerator`` means here. Raises UserError where there is none."""
    asked = cfg.trainer.accelerator
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if asked == "gpu" and found == "cpu":
        raise UserError("trainer.accelerator=gpu: this machine shows none; allowed: auto, cpu")
    if asked not in ("auto", "cpu", "gpu"):
        raise UserError(f"trainer.accelerator={asked}: allowed: auto, cpu, gpu")
    return torch.device("cpu" if asked == "cpu" else found)


def check_devices(cfg: DictConfig) -> None:
    """Raise UserError where the run needs more devices than there are, or cannot start on other machines."""
    asked, kind = cfg.trainer.devices, device_of(cfg).type
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, asked)  # on a CPU any number shares it
    if asked > there:
        raise UserError(f"trainer.devices={asked}: {there} {kind} device(s) here; allowed: 1 to {there}")
    nodes, command = cfg.trainer.num_nodes, [*cfg.trainer.node_command][:1]
    if nodes > 1 and not (command and shutil.which(command[0])):
        raise UserError(
            f"trainer.num_nodes={nodes}: trainer.node_command begins with {','.join(command)!r}, no program "
            "here; allowed: 1, or more in a job of Slurm, which has srun"
        )


def precision_of(cfg: DictConfig) -> str:
    """What ``trainer.precision`` asks for; for ``auto`` the faster one of fp32 and bf16."""
    device, asked = device_of(cfg), cfg.trainer.precision.value
    check_precision(asked, device, cfg.trainer.allow_emulated)
    if asked != "auto":
        return asked
    return fastest_precision(build_model(cfg), device, micro_batch_size(cfg), cfg.data.sequence_length)


def micro_batch_size(cfg: DictConfig) -> int:
    """Sequences that a device computes at once. Raises UserError."""
    batch_size, parts = cfg.data.batch_size, cfg.trainer.accumulate
    if batch_size % parts:
        raise UserError(f"trainer.accumulate={parts}: allowed: a divisor of data.batch_size={batch_size}")
    devices = cfg.trainer.devices * cfg.trainer.num_nodes
    if batch_size // parts % devices:
        raise UserError(
            f"trainer.devices={cfg.trainer.devices}: with trainer.num_nodes={cfg.trainer.num_nodes} and "
            f"trainer.accumulate={parts} a batch has {devices * parts} equal parts; allowed: a divisor of "
            f"data.batch_size={batch_size}"
        )
    return batch_size // parts // devices
