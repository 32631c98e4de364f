"""How weights begin: the standard deviations of the papers, and torch's own functions with the same seed."""

import math
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from model_helpers import random_tokens, shrink, small_model
from torch import nn

from redline.errors import UserError
from redline.model import SITES, Transform, Transformer, named_parameters
from redline.model.init import gpt2
from redline.model.transforms import LayerNorm
from redline.training.build import build_model

D, N, V, RATIO = 64, 3, 32, 4


def begun(composed, init, *overrides):
    """The matrices of a model, by what they are."""
    cfg = composed(f"init={init}", *overrides)
    model = small_model(cfg, width=D, num_layers=N)
    return [its for its in named_parameters(model) if its.role != "vector"]


def xavier(shape):
    return math.sqrt(2 / (shape[0] + shape[1]))


BETA = (8 * N) ** -0.25
Q = (D, D)  # also K, V and Proj
# By role or linear; `qkv` as the parts for Q, K and V.
STDS = {
    "gpt2": {"embedding": 0.02, "head": 0.02, "qkv": [0.02] * 3, "fc1": 0.02}
    | dict.fromkeys(("proj", "fc2"), 0.02 / math.sqrt(2 * N)),
    "small_embedding": {"embedding": 1e-4 / math.sqrt(3), "head": 0.02, "qkv": [0.02] * 3, "fc1": 0.02}
    | dict.fromkeys(("proj", "fc2"), 0.02 / math.sqrt(2 * N)),
    "xavier": {
        "embedding": xavier((V, D)), "head": xavier((V, D)), "qkv": [xavier(Q)] * 3, "proj": xavier(Q),
        "fc1": xavier((RATIO * D, D)), "fc2": xavier((D, RATIO * D)),
    },
    "kaiming": {
        "embedding": math.sqrt(2 / D), "head": math.sqrt(2 / D), "qkv": [math.sqrt(2 / D)] * 3,
        "proj": math.sqrt(2 / D), "fc1": math.sqrt(2 / D), "fc2": math.sqrt(2 / (RATIO * D)),
    },
    "deep_norm": {
        "embedding": D**-0.5, "head": D**-0.5, "qkv": [xavier(Q), xavier(Q), BETA * xavier(Q)],
        "proj": BETA * xavier(Q), "fc1": BETA * xavier((RATIO * D, D)), "fc2": BETA * xavier((D, RATIO * D)),
    },
}  # fmt: skip
# The variance of a normal cut off at 3: 1 - 6 phi(3) / (2 Phi(3) - 1).
CUT = math.sqrt(1 - 6 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2)))
STDS["olmo"] = {name: 0.02 * CUT for name in ("embedding", "head", "proj", "fc1", "fc2")}
STDS["olmo"]["qkv"] = [0.02 * CUT] * 3
STDS["truncated_normal"] = {name: CUT / math.sqrt(D) for name in ("embedding", "head", "proj", "fc1")}
STDS["truncated_normal"] |= {"fc2": CUT / math.sqrt(RATIO * D), "qkv": [CUT / math.sqrt(D)] * 3}


@pytest.mark.parametrize("init", STDS)
def test_standard_deviations_are_the_formulas(composed, init):
    for its in begun(composed, init):
        wanted = STDS[init][its.linear or its.role]
        parts = its.parameter.chunk(3) if its.linear == "qkv" else [its.parameter]
        for part, std in zip(parts, wanted if its.linear == "qkv" else [wanted], strict=True):
            # A std of n draws is off by std / sqrt(2n); n is at least 2048.
            assert part.std().item() == pytest.approx(std, rel=0.07), (its.name, init)
            assert abs(part.mean().item()) < 0.1 * std


@pytest.mark.parametrize("init", ["olmo", "truncated_normal"])
def test_what_is_cut_off_is_cut_off_at_three(composed, init):
    largest = {
        its.name: (its.parameter.abs().max() / its.parameter.std()).item() for its in begun(composed, init)
    }
    assert max(largest.values()) < 3.1
    assert max(largest.values()) > 2.9, "cut off further down"


@pytest.mark.parametrize(
    ("init", "torchs"),
    [
        ("xavier", nn.init.xavier_uniform_),
        ("kaiming", partial(nn.init.kaiming_normal_, nonlinearity="relu")),
        ("olmo", partial(nn.init.trunc_normal_, std=0.02, a=-0.06, b=0.06)),
    ],
)
def test_they_are_torchs_own_with_the_same_seed(composed, init, torchs):
    cfg = composed(f"init={init}")
    ours = instantiate(cfg.init, _partial_=True)
    for its in named_parameters(small_model(cfg)):
        if its.role == "vector":
            continue
        torch.manual_seed(5)
        ours(its, 2)
        drawn = its.parameter.detach().clone()
        torch.manual_seed(5)
        for part in its.parameter.detach().chunk(3 if (init, its.linear) == ("xavier", "qkv") else 1):
            torchs(part)
        assert torch.equal(its.parameter, drawn), its.name


def test_deepnets_constant_by_hand(composed):
    """N = 18 in the paper's formula: beta = 144^(-1/4) = 1 / sqrt(12) = 0.2887."""
    model = small_model(composed("init=deep_norm"), num_layers=18, width=32)
    deep = [its for its in named_parameters(model) if its.linear == "proj"]
    std = torch.stack([its.parameter for its in deep]).std().item()
    assert std == pytest.approx(0.28868 * math.sqrt(2 / 64), rel=0.03)


@pytest.mark.parametrize("norm", ["baseline", "sigma_reparam", "layer_scale"])
def test_gains_begin_as_their_transform_says(composed, norm):
    for init in ("kaiming", "gpt2"):
        gains = [
            its.parameter
            for its in named_parameters(small_model(composed(f"norm={norm}", f"init={init}")))
            if its.role == "vector" and not its.name.endswith("gamma")
        ]
        assert gains
        assert all(len(set(gain.tolist())) == 1 for gain in gains)


def test_a_matrix_of_a_transforms_own_begins_as_it_says(composed):
    """Such as a gate: its linears are drawn, its other matrices are its own."""

    class Gate(nn.Module):
        def __init__(self, site):
            super().__init__()
            self.linear = nn.Linear(site.width, site.width, bias=False)
            self.table = nn.Parameter(torch.full((3, 3), 7.0))

        def forward(self, x):
            return x

    torch.manual_seed(0)
    transforms = dict.fromkeys(SITES, ()) | {"attn_branch": [Transform(Gate)]}
    model = Transformer(
        transforms, LayerNorm, partial(gpt2, std=0.5),
        width=16, num_layers=1, num_heads=2, mlp_ratio=4, vocab_size=32, sequence_length=8,
        dropout=0.0, attention_dropout=0.0, embedding_dropout=0.0, token_dropout=0.0,
        positions="rope", rope_base=1e4, attention="auto",
    )  # fmt: skip
    gate = model.blocks[0].attn_branch
    assert (gate.table == 7).all()
    assert gate.linear.weight.std().item() == pytest.approx(0.5, rel=0.2)


def roles(model):
    return {its.name: (its.role, its.linear, its.layer) for its in named_parameters(model)}


@pytest.mark.parametrize("norm", ["baseline", "sigma_reparam"])
def test_every_parameter_has_its_role_and_place(composed, norm):
    model = small_model(composed(f"norm={norm}", "model.positions=learned"))
    found = roles(model)
    assert len(found) == len(list(model.parameters()))
    assert found["embedding.weight"] == found["positions.embedding.weight"] == ("embedding", None, None)
    assert found["head.weight"] == ("head", None, None)
    assert found["blocks.1.attention.qkv.weight"] == ("hidden", "qkv", 1)
    assert found["blocks.0.attention.proj.weight"] == ("hidden", "proj", 0)
    assert found["blocks.1.mlp.fc1.weight"] == ("hidden", "fc1", 1)
    assert found["blocks.0.mlp.fc2.weight"] == ("hidden", "fc2", 0)
    assert found["blocks.1.attn_in.weight"] == ("vector", None, 1)
    assert found["final.weight"] == ("vector", None, None)
    if norm == "sigma_reparam":
        assert found["blocks.0.mlp.fc2.parametrizations.weight.0.gamma"] == ("vector", None, 0)


def test_an_init_that_is_none_is_refused(composed):
    for override, said in [
        ("init._target_=os.system", r"init\._target_=os\.system: .*allowed: a function of `named`"),
        ("init.std=0", r"init\.std=0: allowed: a number above 0"),
        ("+init.cut=3", r"init\.cut: unknown argument; allowed: std"),
    ]:
        with pytest.raises(UserError, match=said):
            build_model(shrink(composed(override)))


def test_a_seed_gives_the_same_weights(composed):
    first, again = (small_model(composed("init=deep_norm")) for _ in range(2))
    assert torch.equal(first(random_tokens(1, 4)), again(random_tokens(1, 4)))
