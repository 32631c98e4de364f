"""The model as a whole: where its sites are, and what the baseline computes."""

import math
import re
from functools import partial

import pytest
import torch
from model_helpers import NORMS, random_tokens, shrink, small_model
from torch import nn

from redline.errors import UserError
from redline.model import OUTSIDE, SITES, Transform, Transformer
from redline.model.init import gpt2
from redline.model.norm_strategy import PLAIN
from redline.model.transforms import LayerNorm
from redline.training.build import build_model


class Recorder(nn.Module):
    """What the site is where no transform acts; it keeps what it gives."""

    def __init__(self, name, seen):
        super().__init__()
        self.name, self.seen, self.plain = name, seen, PLAIN.get(name, nn.Identity)()

    def forward(self, *inputs):
        out = self.plain(*inputs)
        self.seen.append((self.name, out.detach()))
        return out


@pytest.fixture(params=["rope", "learned"])
def recorded(request):
    """Of two blocks: the model, and each site's name and values in the order they were passed."""
    seen = []
    torch.manual_seed(0)
    model = Transformer(
        {name: [Transform(lambda site: Recorder(site.name, seen))] for name in SITES},
        LayerNorm, partial(gpt2, std=0.5),
        width=16, num_layers=2, num_heads=2, mlp_ratio=3, vocab_size=32, sequence_length=8,
        dropout=0.0, attention_dropout=0.0, embedding_dropout=0.0, token_dropout=0.0,
        positions=request.param, rope_base=1e4, attention="auto",
    )  # fmt: skip
    seen.clear()
    model(random_tokens(3, 7))
    return model, seen


IN_BLOCK = [name for name in SITES if name not in ("linear", *OUTSIDE)]


def test_every_site_is_passed_in_order(recorded):
    _, seen = recorded
    names = [name for name, _ in seen if name != "linear"]
    assert names == ["embed", *IN_BLOCK, *IN_BLOCK, "final", "logits"]
    sizes = {"B": 3, "T": 7, "D": 16, "H": 2, "K": 8, "F": 48, "V": 32}
    for name, x in seen:
        if name != "linear":
            expected = [sizes[axis] for axis in re.match(r"\w+", SITES[name])[0]]
            assert x.numel() == math.prod(expected)
            assert list(x.shape[-2:]) == expected[-2:], name


def test_what_passes_each_site_follows_from_the_site_before(recorded):
    model, seen = recorded
    passed = [x for name, x in seen if name != "linear"]
    tokens = random_tokens(3, 7)
    stream = model.positions.embed(model.embedding(tokens))
    torch.testing.assert_close(passed[0], stream)
    size = len(IN_BLOCK)
    for block, start in zip(model.blocks, (1, 1 + size), strict=True):
        at = dict(zip(IN_BLOCK, passed[start : start + size], strict=True))
        q, k, v = block.attention.qkv.weight.split(16)
        for name, weight in (("q", q), ("k", k), ("v", v)):
            heads = at["attn_in"] @ weight.T
            torch.testing.assert_close(at[name].transpose(1, 2).flatten(2), heads, rtol=1e-4, atol=1e-4)
        heads_BHTK = at["prob"].view(3, 2, 7, 7) @ at["v"]
        wanted = {
            "attn_in": stream,
            "qk_weight": model.positions.rotate(at["q"]),
            "prob": torch.softmax(at["softmax"].log(), -1),
            "gate": heads_BHTK.transpose(1, 2).flatten(2),
            "proj_in": at["gate"],
            "proj_out": at["proj_in"] @ block.attention.proj.weight.T,
            "attn_branch": at["proj_out"],
            "attn_sum": stream + at["attn_branch"],
            "attn_residual": at["attn_sum"],
            "mlp_in": at["attn_residual"],
            "fc1_out": at["mlp_in"] @ block.mlp.fc1.weight.T,
            "fc2_in": torch.nn.functional.gelu(at["fc1_out"]),
            "fc2_out": at["fc2_in"] @ block.mlp.fc2.weight.T,
            "mlp_branch": at["fc2_out"],
            "mlp_sum": at["attn_residual"] + at["mlp_branch"],
            "mlp_residual": at["mlp_sum"],
        }
        for name, x in wanted.items():
            torch.testing.assert_close(at[name], x, rtol=1e-4, atol=1e-4, msg=name)
        stream = at["mlp_residual"]
    torch.testing.assert_close(passed[-2], stream)
    torch.testing.assert_close(passed[-1], stream @ model.head.weight.T, rtol=1e-4, atol=1e-4)


def test_scores_are_scaled_and_not_yet_masked_and_probabilities_are(recorded):
    model, seen = recorded
    at = dict(reversed([(name, x) for name, x in seen if name != "linear"]))
    rotate = model.positions.rotate
    q_NTK, k_NTK = (rotate(at[name]).flatten(0, 1) for name in "qk")
    torch.testing.assert_close(at["score"].flatten(0, -3), q_NTK @ k_NTK.transpose(1, 2) / math.sqrt(8))
    assert at["score"].isfinite().all()
    assert (at["prob"].triu(1) == 0).all()
    torch.testing.assert_close(at["prob"].sum(-1), torch.ones_like(at["prob"][..., 0]))


def test_the_linear_site_is_every_linears_weight(recorded):
    model, seen = recorded
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 4 * 2 + 1
    assert sum(name == "linear" for name, _ in seen) == len(linears)


def layer_norm(x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5)


def written_out(model, tokens_BT):
    """GPT-2's block with rotary positions, no biases and an untied head, in plain arithmetic."""
    x = model.embedding.weight[tokens_BT]
    B, T, D = x.shape
    H, K = 2, D // 2
    turn = torch.polar(
        torch.ones(T, K // 2), torch.outer(torch.arange(T), 1e4 ** (-torch.arange(K // 2) * 2 / K))
    )
    future = torch.ones(T, T, dtype=torch.bool).triu(1)

    def rotated(heads_BHTK):
        z = torch.complex(heads_BHTK[..., : K // 2], heads_BHTK[..., K // 2 :]) * turn
        return torch.cat([z.real, z.imag], -1)

    for block in model.blocks:
        qkv = layer_norm(x) @ block.attention.qkv.weight.T
        q, k, v = (part.view(B, T, H, K).transpose(1, 2) for part in qkv.split(D, -1))
        score = (rotated(q) @ rotated(k).transpose(2, 3) / math.sqrt(K)).masked_fill(future, -math.inf)
        heads = torch.softmax(score, -1) @ v
        x = x + heads.transpose(1, 2).reshape(B, T, D) @ block.attention.proj.weight.T
        hidden = layer_norm(x) @ block.mlp.fc1.weight.T
        x = x + (hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2) @ block.mlp.fc2.weight.T
    return layer_norm(x) @ model.head.weight.T


def test_the_baseline_is_the_pre_norm_transformer(composed):
    model, tokens = small_model(composed("norm=baseline"), init_std=0.3), random_tokens(3, 7)
    torch.testing.assert_close(model(tokens), written_out(model, tokens), rtol=1e-4, atol=1e-4)
    assert not [name for name, _ in model.named_parameters() if "bias" in name]


@pytest.mark.parametrize("norm", NORMS)
def test_a_seed_gives_every_variant_the_same_weights(composed, norm):
    weights = small_model(composed("norm=baseline")).state_dict()
    its = {
        name.replace("parametrizations.weight.original", "weight"): value
        for name, value in small_model(composed(f"norm={norm}")).state_dict().items()
    }
    for name, value in weights.items():
        if value.ndim == 2:
            assert torch.equal(its[name], value), name


def test_sigma_reparam_changes_nothing_at_the_start(composed):
    tokens = random_tokens(3, 8)
    baseline = small_model(composed("norm=baseline"), init_std=0.3)(tokens)
    reparam = small_model(composed("norm=sigma_reparam"), init_std=0.3)
    torch.testing.assert_close(reparam(tokens), baseline, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reparam.eval()(tokens), baseline, rtol=1e-4, atol=1e-4)
    gammas = [name for name, _ in reparam.named_parameters() if name.endswith("gamma")]
    assert len(gammas) == 4 * 2 + 1


def test_a_variant_that_forgets_a_site_is_told_how_to_begin(composed):
    cfg = shrink(composed())
    cfg.norm_strategy.proj_out = "???"
    with pytest.raises(UserError, match=r"norm_strategy\.proj_out: not set.*baseline"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("norm_strategy.score={_target_:redline.model.transforms.LayerNorm}", "norm_strategy.score:"),
        ("norm_strategy.q={_target_:redline.model.transforms.LayerNorm}", "norm_strategy.q.span"),
        ("model.num_heads=3", "model.width=16"),
    ],
)
def test_a_wrong_table_or_shape_names_the_key(composed, override, key):
    cfg = shrink(composed(override))
    if override.startswith("model."):
        cfg.model.num_heads = 3
    with pytest.raises(UserError) as error:
        build_model(cfg)
    assert str(error.value).startswith(key)
