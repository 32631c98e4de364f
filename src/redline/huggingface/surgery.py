"""Puts a norm strategy's transforms into a network of theirs, site by site."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from redline.bounds import shown
from redline.errors import UserError
from redline.huggingface.attention import Heads
from redline.huggingface.family import Family, is_norm
from redline.huggingface.linears import inputs_and_outputs, outputs, scale_heads, stream_axis
from redline.huggingface.parts import Around, Block, Gated, Native, Projection, Split
from redline.model import Layer, NormStrategy, SiteMap, Transform
from redline.model.attention import ScaledDotProduct
from redline.model.transforms import SoftCap

_BLOCK = tuple(Block.__annotations__)  # the sites that it has itself
_NOT_PARALLEL = ("attn_sum", "attn_residual", "mlp_sum")  # there is one sum, of three
_NORMED = ("attn_in", "mlp_in", "final")  # where a plain transformer has its norm
_QKV = ("q", "k", "v")
_IN_PARTS = (
    *_QKV,
    "qk_weight",
    "score",
    "softmax",
    "prob",
    "proj_in",
    "fc1_out",
    "fc2_in",
    "linear",
    "logits",
)


@dataclass
class _Part:
    """A block under the knife, with its linears by the site map's names."""

    block: Any
    linears: Mapping[str, list[Any]]
    stream: NormStrategy
    heads: NormStrategy
    key_heads: NormStrategy


class Surgery:
    """``network``: theirs, with a head. ``transforms``, ``norm_layer``: as a `NormStrategy` has them; without
    a norm layer it is the network's own class of norm.

    A strategy says what it changes of a plain pre-norm transformer. What it leaves as it is there, the
    network keeps as it has it: its own norm, or none. Raises UserError for what the network has no place for.
    """

    def __init__(
        self,
        network: Any,
        family: Family,
        transforms: Mapping[str, Sequence[Transform]],
        norm_layer: Callable[..., nn.Module] | None,
        path: str,
    ) -> None:
        self.network, self.family, self.norm_layer, self.path = network, family, norm_layer, path
        config, parallel = network.config, family.parallel
        for key, value in family.needs.items():
            if getattr(config, key) != value:
                raise UserError(f"sites.needs.{key}={shown(value)}: this model has {getattr(config, key)}")
        self.parallel: bool = getattr(config, parallel) if isinstance(parallel, str) else parallel
        self.acting = {site for site, its in transforms.items() if _acts(site, its)}
        for site in _NOT_PARALLEL:
            if self.parallel and site in self.acting:
                raise UserError(
                    f"norm_strategy.{site}: this model adds both branches at once and has no such site; "
                    "allowed: null, or a model that adds one after the other"
                )
        self.blocks = _found(network, "blocks", family.blocks)
        self.head = _found(network, "head", family.head)
        width, heads = config.hidden_size, config.num_attention_heads
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        self.splits = [Split((heads, key_heads, key_heads), family.by_head)]
        if len(family.of_qkv) > 1:
            self.splits = [Split((its,)) for its in self.splits[0].heads]
        first = {name: self._linears(self.blocks[0], name) for name in (*family.of_qkv, "fc2")}
        qkv = [inputs_and_outputs(its)[1] for name in family.of_qkv for its in first[name]]
        channels = sum(qkv) // (heads + 2 * key_heads)
        like = _found(self.blocks[0], "norms", next(iter(family.norms.values())))
        make = partial(Native, like=like) if norm_layer is None else norm_layer
        shape = (len(self.blocks), inputs_and_outputs(first["fc2"][0])[0], self.head.weight.shape[0])
        self.stream = NormStrategy(transforms, make, width, heads, *shape)
        self.of_heads = NormStrategy(transforms, make, heads * channels, heads, *shape, stream=width)
        self.of_key_heads = replace(self.of_heads, width=key_heads * channels, num_heads=key_heads)

    def operate(self) -> SiteMap:
        """Changes the network; returns where its parts are afterwards."""
        self._check_norms(self.blocks[0])
        if self._needs_blocks() and self.head.weight.device.type != "meta":
            self._check_block()
        layers = [self._layer(number) for number in range(len(self.blocks))]
        if self._changes("final"):
            self.network.set_submodule(
                self.family.norms["final"], self._module("final", self.stream, self.network)
            )
        if "linear" in self.acting:
            self.stream.reparametrize_one(self.head, stream_axis(self.head, writes=False))
        return SiteMap(layers, self.head, self.stream.width)

    def cap(self, site: str) -> nn.Module | None:
        """The network's own there."""
        value = getattr(self.network.config, self.family.caps[site]) if site in self.family.caps else None
        return None if value is None or site in self.acting else SoftCap(self.stream.site(site), value)

    def _changes(self, site: str) -> bool:
        """Whether the network's own is not what is wanted: of the norms, where one was chosen, all."""
        return site in self.acting or (self.norm_layer is not None and site in self.family.norms)

    def _module(self, site: str, strategy: NormStrategy, root: nn.Module) -> nn.Module:
        """What is wanted there: the strategy's, the norm that was chosen for all, or the network's own."""
        own = _own(root, self.family, site)
        if site in self.acting:
            if own is not None and self.norm_layer is None:
                strategy = replace(strategy, norm_layer=partial(strategy.norm_layer, own=own))
            return strategy.at(site)
        if own is None:
            return nn.Identity() if site in _NORMED else strategy.at(site)
        if self.norm_layer is None:
            norm: nn.Module = own
            return norm
        span = None if site not in _QKV else "head" if own.weight.numel() < strategy.width else "full"
        return self.norm_layer(strategy.site(site), span=span)

    def _needs_blocks(self) -> bool:
        """Whether a block of ours has to stand in for each of theirs."""
        return "gate" in self.acting or any(map(self._changes, _BLOCK))

    @torch.no_grad()
    def _check_block(self) -> None:
        """Raise UserError where their block does more than a `Block` of its parts, such as a factor."""
        plain = copy.copy(self)
        plain.acting, plain.norm_layer = set(), None
        stream = replace(self.stream, transforms=dict.fromkeys(self.stream.transforms, ()))
        block, seen = self.blocks[0], []
        ours = plain._block(_Part(block, {}, stream, stream, stream), 0, None)
        handle = block.register_forward_hook(lambda *its: seen.append(its[1:]), with_kwargs=True)
        attention, training = self.network.config._attn_implementation, self.network.training
        self.network.config._attn_implementation = "eager"
        try:
            self.network.eval()(torch.arange(4, device=self.head.weight.device)[None], use_cache=False)
            [(values, named, theirs)] = seen
            same = torch.allclose(ours.eval()(*values, **named), theirs, rtol=1e-4, atol=1e-5)
        finally:
            handle.remove()
            self.network.config._attn_implementation = attention
            self.network.train(training)
        if not same:
            raise UserError(
                "sites: the block does more than the parts that they name; allowed of norm_strategy: "
                f"{', '.join(_IN_PARTS)}"
            )

    def _layer(self, number: int) -> Layer:
        family, block = self.family, self.blocks[number]
        names = (*family.of_qkv, "proj", "fc1", "fc2")
        strategies = (its.in_layer(number) for its in (self.stream, self.of_heads, self.of_key_heads))
        part = _Part(block, {name: self._linears(block, name) for name in names}, *strategies)
        attention = block.get_submodule(family.attention)
        self._attention(attention, part)
        self._qkv(part)
        gated = self._about_linears(part)
        if self._needs_blocks():
            self.blocks[number] = self._block(part, number, gated)
        if "linear" in self.acting:  # last: who reads a weight that is made anew changes its state
            for name, linears in part.linears.items():
                for linear in linears:
                    part.stream.reparametrize_one(linear, stream_axis(linear, name in ("proj", "fc2")))
        return Layer(
            self.blocks[number],
            outputs(part.linears, self.splits),
            attention.redline.inner,
            attention.redline.qk_weight,
            part.key_heads.num_heads,
            partial(scale_heads, [its for name in family.of_qkv for its in part.linears[name]], self.splits),
        )

    def _linears(self, block: nn.Module, name: str) -> list[Any]:
        return [_found(block, f"linears.{name}", path) for path in self.family.paths(name)]

    def _check_norms(self, block: nn.Module) -> None:
        """One that is not on the map would be lost."""
        for name, its in block.named_modules():
            if is_norm(its) and name not in self.family.norms.values():
                raise UserError(f"sites.norms: has no site for the block's {name}; allowed: SITE: {name}")

    def _attention(self, attention: Any, part: _Part) -> None:
        scaling = attention.scaling if self.family.scaling is None else self.family.scaling
        inner = ScaledDotProduct(part.heads, 0.0, self.path, scaling)
        if (cap := self.cap("score")) is not None:
            inner.score, inner.fusable = cap, False
        attention.redline = Heads(inner, part.heads.at("qk_weight"), scaling)

    def _qkv(self, part: _Part) -> None:
        strategies = zip(_QKV, (part.heads, part.key_heads, part.key_heads), strict=True)
        wanted = {
            site: self._module(site, its, part.block) for site, its in strategies if self._changes(site)
        }
        for site in wanted:
            if _own(part.block, self.family, site) is not None:
                part.block.set_submodule(self.family.norms[site], nn.Identity())
        for name, split in zip(self.family.of_qkv, self.splits, strict=True):
            here = _QKV if len(split.heads) > 1 else (name,)
            if wanted.keys() & {*here}:
                sites = {site: wanted.get(site, nn.Identity()) for site in here}
                [path] = self.family.paths(name)
                part.block.set_submodule(path, Projection(part.linears[name][0], sites, split))

    def _about_linears(self, part: _Part) -> Gated | None:
        before: dict[str, dict[str, nn.Module]] = {"proj": {}, "fc2": {}}
        gated = None
        if "gate" in self.acting:
            gated = Gated(part.heads.at("gate"))
            for module in gated.modules():
                if isinstance(module, nn.Linear):
                    self.network._init_weights(module)
            before["proj"]["gated"] = gated
        if "proj_in" in self.acting:
            before["proj"]["proj_in"] = part.heads.at("proj_in")
        if "fc2_in" in self.acting:
            before["fc2"]["fc2_in"] = part.stream.at("fc2_in")
        for name, modules in before.items():
            if modules:
                [path] = self.family.paths(name)
                part.block.set_submodule(path, Around(part.linears[name][0], modules))
        if "fc1_out" in self.acting:
            for path, linear in zip(self.family.paths("fc1"), part.linears["fc1"], strict=True):
                several = range(inputs_and_outputs(linear)[1] // part.stream.inner)
                after = [part.stream.at("fc1_out") for _ in several]
                part.block.set_submodule(path, Around(linear, {}, after))
        return gated

    def _block(self, part: _Part, number: int, gated: Gated | None) -> Block:
        family, paths = self.family, self.family.mlp
        mlp = [part.block.get_submodule(path) for path in ([paths] if isinstance(paths, str) else paths)]
        sites = {site: self._module(site, part.stream, part.block) for site in _BLOCK}
        if number > 0:
            sites["embed"] = nn.Identity()
        return Block(
            part.block.get_submodule(family.attention),
            mlp[0] if len(mlp) == 1 else nn.Sequential(*mlp),
            sites,
            [*inspect.signature(type(part.block).forward).parameters][2:],
            0.0 if family.dropout is None else getattr(self.network.config, family.dropout),
            self.parallel,
            gated,
        )


def _acts(site: str, transforms: Sequence[Transform]) -> bool:
    """Whether it is other than in a plain pre-norm transformer."""
    if site in _NORMED:
        return [its.is_norm for its in transforms] != [True]
    return bool(transforms)


def _found(root: nn.Module, key: str, path: str) -> Any:
    try:
        return root.get_submodule(path)
    except AttributeError as error:
        names = ", ".join(name for name, _ in root.named_children())
        raise UserError(f"sites.{key}={path}: no such module; allowed: one of {names}") from error


def _own(root: nn.Module, family: Family, site: str) -> Any:
    """The network's own norm at a site, where it has one."""
    try:
        return root.get_submodule(family.norms[site]) if site in family.norms else None
    except AttributeError:
        return None
