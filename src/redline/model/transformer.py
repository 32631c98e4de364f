"""A decoder-only transformer whose normalisation is a table: no biases, untied head, GELU."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from redline.bounds import Kept
from redline.errors import UserError
from redline.model.attention import Attention
from redline.model.init import Init
from redline.model.norm_strategy import SITES, NormStrategy, Transform
from redline.model.positions import POSITIONS
from redline.model.roles import named_parameters
from redline.model.site_map import Layer, Linear, MappedModel, Output, SiteMap
from redline.model.transforms import LayerNorm

_SMALL: Final = {"num_layers": 1, "vocab_size": 64, "sequence_length": 16}


class Mlp(nn.Module):
    """FC1, GELU, FC2. (B,T,D) to (B,T,D)."""

    def __init__(self, strategy: NormStrategy) -> None:
        super().__init__()
        self.fc1 = nn.Linear(strategy.width, strategy.inner, bias=False)
        self.fc2 = nn.Linear(strategy.inner, strategy.width, bias=False)
        self.fc1_out, self.fc2_in = strategy.at("fc1_out"), strategy.at("fc2_in")
        self.fc2_out = strategy.at("fc2_out")

    def forward(self, x_BTD: Tensor) -> Tensor:
        hidden_BTF = self.fc2_in(F.gelu(self.fc1_out(self.fc1(x_BTD))))
        return self.fc2_out(self.fc2(hidden_BTF))


class Block(nn.Module):
    """Two residual branches; every named site of the strategy is one call."""

    def __init__(self, strategy: NormStrategy, attention: Attention, mlp: Mlp, dropout: float) -> None:
        super().__init__()
        self.attn_in, self.mlp_in = strategy.at("attn_in"), strategy.at("mlp_in")
        self.attention, self.mlp = attention, mlp
        self.attn_branch, self.mlp_branch = strategy.at("attn_branch"), strategy.at("mlp_branch")
        self.attn_sum, self.mlp_sum = strategy.at("attn_sum"), strategy.at("mlp_sum")
        self.attn_residual, self.mlp_residual = strategy.at("attn_residual"), strategy.at("mlp_residual")
        self.dropout = _dropout(dropout)

    def forward(self, x_BTD: Tensor, mask_TT: Tensor) -> Tensor:
        attn_BTD = self.attn_branch(self.dropout(self.attention(self.attn_in(x_BTD), mask_TT)))
        x_BTD = self.attn_residual(self.attn_sum(x_BTD, attn_BTD))
        mlp_BTD = self.mlp_branch(self.dropout(self.mlp(self.mlp_in(x_BTD))))
        return self.mlp_residual(self.mlp_sum(x_BTD, mlp_BTD))

    @property
    def layer(self) -> Layer:
        attention, mlp = self.attention, self.mlp
        linears = (attention.qkv, attention.proj, mlp.fc1, mlp.fc2)
        outputs = {str(name): Output((its,)) for name, its in zip(Linear, linears, strict=True)}
        for number, name in enumerate(("q", "k", "v")):
            outputs[name] = Output((attention.qkv,), partial(_third, number))
        return Layer(
            self, outputs, attention.inner, attention.qk_weight, attention.num_heads, attention.scale_heads
        )


def _third(number: int, x_BTC: Tensor) -> Tensor:
    return x_BTC.chunk(3, -1)[number]


def _dropout(share: float) -> nn.Module:
    return nn.Dropout(share) if share else nn.Identity()


class Transformer(MappedModel):
    """Token ids (B,T) to logits (B,T,V).

    ``transforms`` maps every site to the transforms there, ``norm_layer`` makes the norm that a strategy may
    ask for (None: LayerNorm), ``init`` draws a matrix (see `redline.model.init`; None: as torch does it);
    ``sequence_length`` is the longest T.
    ``token_dropout`` is the share of the tokens whose embedding is zero in training, with no other scaled up
    (blank noise: Xie et al. 2017, section 3.2).
    Raises UserError for a shape that cannot be built.
    """

    mask_TT: Tensor

    def __init__(
        self,
        transforms: Mapping[str, Sequence[Transform]],
        norm_layer: Callable[..., nn.Module] | None,
        init: Init | None,
        *,
        width: Annotated[int, Ge(1), Le(2**17)],
        num_layers: Annotated[int, Ge(1), Le(1000)],
        num_heads: Annotated[int, Ge(1), Le(2**17)],
        mlp_ratio: Annotated[int, Ge(1), Le(1000)],
        vocab_size: Annotated[int, Ge(1), Le(2**24)],
        sequence_length: Annotated[int, Ge(1), Le(2**24)],
        dropout: Kept,
        attention_dropout: Kept,
        embedding_dropout: Kept,
        token_dropout: Kept,
        positions: Literal["rope", "learned"],
        rope_base: Annotated[float, Gt(1), Le(10**12)],
        attention: Literal["auto", "fused", "explicit"],
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise UserError(
                f"model.width={width}: not divisible by model.num_heads={num_heads}; "
                f"allowed: a multiple of {num_heads}"
            )
        if positions == "rope" and width // num_heads % 2:
            raise UserError(
                f"model.width={width}: divided by model.num_heads={num_heads} it is odd; allowed with "
                "model.positions=rope: an even head width"
            )
        strategy = NormStrategy(
            transforms, norm_layer or LayerNorm, width, num_heads, num_layers, mlp_ratio * width, vocab_size
        )
        self.embedding = nn.Embedding(vocab_size, width)
        self.token_dropout = token_dropout
        self.embedding_dropout = _dropout(embedding_dropout)
        self.positions = POSITIONS[positions](sequence_length, width, num_heads, rope_base)
        self.embed = strategy.at("embed")
        self.blocks = nn.ModuleList(
            Block(its, Attention(its, self.positions, attention_dropout, attention), Mlp(its), dropout)
            for its in map(strategy.in_layer, range(num_layers))
        )
        self.final = strategy.at("final")
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.logits = strategy.at("logits")
        future_TT = torch.ones(sequence_length, sequence_length, dtype=torch.bool).triu(1)
        mask_TT = torch.zeros(sequence_length, sequence_length).masked_fill(future_TT, -math.inf)
        self.register_buffer("mask_TT", mask_TT, persistent=False)
        self._init_weights(init)
        for layer, block in enumerate(self.blocks):
            strategy.in_layer(layer).reparametrize(block)
        strategy.reparametrize(self)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        if self.training and self.token_dropout:
            kept_BT1 = torch.rand_like(x_BTD[..., :1]) >= self.token_dropout
            x_BTD = x_BTD * kept_BT1
        x_BTD = self.embedding_dropout(self.embed(self.positions.embed(x_BTD)))
        for block in self.blocks:
            x_BTD = block(x_BTD, self.mask_TT)
        return self.logits(self.head(self.final(x_BTD)))

    @property
    def site_map(self) -> SiteMap:
        layers = [its.layer for its in self.blocks if isinstance(its, Block)]
        return SiteMap(layers, self.head, self.embedding.embedding_dim)

    @staticmethod
    def small(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {name: min(arguments[name], most) for name, most in _SMALL.items()}

    def _init_weights(self, init: Init | None) -> None:
        """Those of transforms are drawn last, so that a seed gives every variant the same for the rest."""
        if init is None:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()
            return
        drawn = {
            id(module.weight) for module in self.modules() if isinstance(module, nn.Linear | nn.Embedding)
        }
        for named in sorted(named_parameters(self), key=lambda its: _is_a_sites(its.name)):
            if id(named.parameter) in drawn:
                init(named, len(self.blocks))


def _is_a_sites(name: str) -> bool:
    return not SITES.keys().isdisjoint(name.split("."))
