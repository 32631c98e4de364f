"""From `optimizer` of a configuration to the optimizer of a model's parameters, group by group."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isclose
from typing import Any

from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer

from redline.bounds import Positive, check_value
from redline.errors import UserError
from redline.model import LINEARS, ROLES, Named
from redline.parts import Kind, find_part, returns
from redline.training.optimizers.joined import Joined
from redline.training.optimizers.shares import decay_shares

MakeOptimizer = Callable[[Sequence[Named], float], Optimizer]

_KIND = Kind(
    "a subclass of torch.optim.Optimizer, or a function that returns one",
    returns(Optimizer),
    positional=2,
)


@dataclass(frozen=True)
class _Group:
    """``make``: its own optimizer; None: the main one, with ``options``."""

    pattern: str
    lr_scale: float
    weight_decay: float | None
    options: Mapping[str, Any]
    make: Callable[..., Optimizer] | None

    def has(self, named: Named) -> bool:
        if self.pattern in ROLES:
            return named.role == self.pattern
        if self.pattern in LINEARS:
            return named.linear == self.pattern
        return fnmatchcase(named.name, self.pattern)


def optimizer_from(spec: Any) -> MakeOptimizer:
    """From a model's parameters and the peak LR to the optimizer.

    ``spec``: `_target_` and its arguments; ``groups``: pattern -> what is other for those parameters that it
    is the first to match. A pattern is a role, a linear of the blocks, or a shell pattern over names. A group
    has options of the optimizer's own groups; ``lr_scale``, a factor of the LR; and `_target_` with its
    arguments for an optimizer of its own. ``independent`` makes the decay at the peak LR equal to
    ``weight_decay`` itself, whatever the peak (Wortsman et al. 2023, section 3.2), where it else is
    lr * weight_decay a step. Raises UserError.
    """
    plain = _plain(spec)
    arguments = {key: value for key, value in plain.items() if key not in ("groups", "independent")}
    make = find_part("optimizer", arguments, _KIND)
    independent = plain.get("independent", False)
    check_value("optimizer.independent", independent, bool)
    groups = [_group(pattern, its, arguments) for pattern, its in _table(plain).items()]
    main = _Group("", 1.0, arguments.get("weight_decay"), {}, make)
    if independent:
        _check_independent(_Maker(main, [], independent=False), main.weight_decay)
    return _Maker(main, groups, independent)


def check_patterns(spec: Any, parameters: Sequence[Named]) -> None:
    """Raise UserError for a pattern that matches none of a model's parameters and names no role or linear."""
    for pattern in _table(_plain(spec)):
        known = pattern in ROLES or pattern in LINEARS
        if not known and not any(fnmatchcase(its.name, pattern) for its in parameters):
            raise UserError(
                f"optimizer.groups.{pattern}: no parameter has such a name; allowed: "
                f"{', '.join([*ROLES, *LINEARS])}, or a pattern over names such as {parameters[0].name}"
            )


def _plain(spec: Any) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(spec, resolve=True) if OmegaConf.is_config(spec) else spec
    return dict(plain)


def _table(plain: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    table = plain.get("groups", {})
    check_value("optimizer.groups", table, dict[str, dict[str, Any]])
    return table


def _group(pattern: str, its: Mapping[str, Any], main: Mapping[str, Any]) -> _Group:
    key = f"optimizer.groups.{pattern}"
    options = {name: value for name, value in its.items() if name != "lr_scale"}
    scale = its.get("lr_scale", 1.0)
    check_value(f"{key}.lr_scale", scale, Positive)
    if "_target_" in options:
        return _Group(pattern, scale, options.get("weight_decay"), {}, find_part(key, options, _KIND))
    find_part(key, {**main, **options}, _KIND)  # checks them
    return _Group(pattern, scale, options.get("weight_decay", main.get("weight_decay")), options, None)


def _check_independent(coupled: MakeOptimizer, weight_decay: float | None) -> None:
    if weight_decay is None or not isclose(decay_shares(coupled)[0], weight_decay, rel_tol=1e-6):
        raise UserError(
            "optimizer.independent=true: a step of this optimizer does not take lr * weight_decay off the "
            "weights; allowed: false"
        )


@dataclass(frozen=True)
class _Maker:
    main: _Group
    groups: Sequence[_Group]
    independent: bool

    def __call__(self, parameters: Sequence[Named], lr: float) -> Optimizer:
        members: dict[str, list[nn.Parameter]] = {}
        for named in parameters:
            group = next((its for its in self.groups if its.has(named)), self.main)
            members.setdefault(group.pattern, []).append(named.parameter)
        there = [its for its in (self.main, *self.groups) if its.pattern in members]
        shared = [its for its in there if its.make is None or its is self.main]
        optimizers = []
        if shared:
            optimizers.append(self._make(self.main, shared, members, lr))
            _check_options(optimizers[0], shared)
        optimizers += [self._make(its, [its], members, lr) for its in there if its not in shared]
        return optimizers[0] if len(optimizers) == 1 else Joined(optimizers)

    def _make(
        self,
        maker: _Group,
        groups: Sequence[_Group],
        members: Mapping[str, list[nn.Parameter]],
        lr: float,
    ) -> Optimizer:
        assert maker.make is not None
        made = [{"params": members[its.pattern], **self._options(its, lr)} for its in groups]
        # A function of the user's own need not know of groups.
        plain = len(made) == 1 and len(made[0]) == 1
        return maker.make(made[0]["params"] if plain else made, lr)

    def _options(self, group: _Group, lr: float) -> dict[str, Any]:
        options = dict(group.options)
        if group.lr_scale != 1:
            options["lr"] = lr * group.lr_scale
        if self.independent and group.weight_decay is not None:
            options["weight_decay"] = group.weight_decay / (lr * group.lr_scale)
        return options


def _check_options(optimizer: Optimizer, groups: Sequence[_Group]) -> None:
    for group in groups:
        for name in group.options:
            if name not in optimizer.defaults:
                raise UserError(
                    f"optimizer.groups.{group.pattern}.{name}: the same for all groups; allowed here: "
                    f"{', '.join(optimizer.defaults)}, or a _target_ of its own"
                )
