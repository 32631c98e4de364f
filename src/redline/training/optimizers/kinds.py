"""Torch's and pytorch-optimizer's optimizers as functions of parameters and peak LR, with bounds.

An argument that keeps its package's name may differ between groups of parameters.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from torch.optim import SGD, Adafactor, AdamW, Muon, Optimizer, RMSprop

from redline.bounds import Count, Epsilon, Kept
from redline.errors import UserError

Parameters = Iterable[Any]  # parameters, or groups as torch has them
Betas = tuple[Kept, Kept]
Decay = Annotated[float, Ge(0), Le(1000)]
Power = Annotated[float, Ge(0), Le(10)]


def adamw(parameters: Parameters, lr: float, *, betas: Betas, eps: Epsilon, weight_decay: Decay) -> AdamW:
    """Fused where the device can."""
    first, *others = parameters
    weight = first["params"][0] if isinstance(first, dict) else first
    return AdamW(
        [first, *others],
        lr=lr,
        betas=(betas[0], betas[1]),
        eps=eps,
        weight_decay=weight_decay,
        fused=weight.device.type in ("cpu", "cuda"),
    )


def adafactor(
    parameters: Parameters,
    lr: float,
    *,
    beta2_decay: Annotated[float, Ge(-10), Le(0)],
    eps: tuple[Epsilon | None, Epsilon],
    d: Annotated[float, Ge(1), Le(10**6)],
    weight_decay: Decay,
) -> Adafactor:
    """``eps``: the least of the variance (null: the dtype's), and the least RMS that a step is scaled by."""
    return Adafactor(
        parameters, lr=lr, beta2_decay=beta2_decay, eps=(eps[0], eps[1]), d=d, weight_decay=weight_decay
    )


def rmsprop(
    parameters: Parameters, lr: float, *, alpha: Kept, eps: Epsilon, momentum: Kept, weight_decay: Decay
) -> RMSprop:
    return RMSprop(parameters, lr=lr, alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay)


def sgd(parameters: Parameters, lr: float, *, momentum: Kept, nesterov: bool, weight_decay: Decay) -> SGD:
    return SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)


def muon(
    parameters: Parameters,
    lr: float,
    *,
    momentum: Kept,
    nesterov: bool,
    ns_steps: Annotated[int, Ge(1), Le(20)],
    weight_decay: Decay,
) -> Muon:
    """For matrices. An update has RMS 0.2, as AdamW's about has (Liu et al. 2025, arXiv 2502.16982)."""
    return Muon(
        parameters,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        ns_steps=ns_steps,
        weight_decay=weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )


def lion(parameters: Parameters, lr: float, *, betas: Betas, weight_decay: Decay) -> Optimizer:
    return _packaged("Lion", parameters, lr, betas=betas, weight_decay=weight_decay)


def stable_adamw(
    parameters: Parameters, lr: float, *, betas: Betas, eps: Epsilon, weight_decay: Decay
) -> Optimizer:
    return _packaged("StableAdamW", parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)


def schedule_free(
    parameters: Parameters,
    lr: float,
    *,
    betas: tuple[Annotated[float, Gt(0), Lt(1)], Kept],
    eps: Epsilon,
    weight_decay: Decay,
    r: Power,
    weight_lr_power: Power,
) -> Optimizer:
    """A step weighs step^r * (largest LR so far)^weight_lr_power in the mean that is evaluated."""
    more = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
    return _packaged("ScheduleFreeAdamW", parameters, lr, **more, r=r, weight_lr_power=weight_lr_power)


def spam(
    parameters: Parameters,
    lr: float,
    *,
    betas: Betas,
    eps: Epsilon,
    weight_decay: Decay,
    density: Annotated[float, Gt(0), Le(1)],
    spike: Annotated[float, Gt(1), Le(10**9)],
    reset_every: Annotated[int, Ge(2), Le(10**9)],
    reset_warmup: Count,
) -> Optimizer:
    """``spike``: how often its mean a squared gradient is clipped to; ``density``: share of a matrix that is
    trained between two resets; ``reset_every`` and ``reset_warmup``: steps.
    """
    return _packaged(
        "SPAM",
        parameters,
        lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        density=density,
        threshold=spike,
        update_proj_gap=reset_every,
        warmup_epoch=reset_warmup,
    )


def stable_spam(
    parameters: Parameters,
    lr: float,
    *,
    betas: Betas,
    eps: Epsilon,
    weight_decay: Decay,
    norm_betas: Betas,
    max_beta: Kept,
    reset_every: Annotated[int, Ge(2), Le(10**9)],
) -> Optimizer:
    """``norm_betas``: of the means of a gradient's norm and its square; ``max_beta``: of its largest entry's;
    ``reset_every``: steps.
    """
    return _packaged(
        "StableSPAM",
        parameters,
        lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        gamma1=norm_betas[0],
        gamma2=norm_betas[1],
        theta=max_beta,
        update_proj_gap=reset_every,
    )


def _packaged(name: str, parameters: Parameters, lr: float, **arguments: Any) -> Optimizer:
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise UserError(
            "optimizer: pytorch-optimizer is not installed; allowed after: pip install 'redline[optimizers]'"
        ) from error
    plain = {key: tuple(its) if isinstance(its, list) else its for key, its in arguments.items()}
    optimizer: Optimizer = getattr(pytorch_optimizer, name)(parameters, lr=lr, **plain)
    return optimizer
