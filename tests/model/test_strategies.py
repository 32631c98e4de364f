"""Norm strategies against their papers' formulas, written out, and the norm layer that a strategy chooses."""

import math

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from model_helpers import NORMS, ROOT, random_tokens, small_model
from test_transformer import layer_norm

from redline.config import register
from redline.model.transforms import Highway, Interpolate, Scale

LAYERS, D, H, K = 4, 16, 2, 8


def rms_norm(x):
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6)


def unit(x):
    return x / torch.sqrt((x**2).sum(-1, keepdim=True))


def same(x):
    return x


def capped(cap):
    return lambda x: cap * torch.tanh(x / cap)


def over_heads(norm):
    """``norm`` of all heads together."""
    return lambda x: norm(x.transpose(1, 2).flatten(2)).unflatten(2, (H, K)).transpose(1, 2)


def attention(block, x, q=same, k=same, v=same, score=same, heads=same, weights=same):
    B, T, _ = x.shape
    qkv, proj = (weights(its.weight) for its in (block.attention.qkv, block.attention.proj))
    parts = (x @ qkv.T).view(B, T, 3, H, K).permute(2, 0, 3, 1, 4)
    q_BHTK, k_BHTK, v_BHTK = q(parts[0]), k(parts[1]), v(parts[2])
    scores = score(q_BHTK @ k_BHTK.transpose(2, 3) / math.sqrt(K))
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    y = torch.softmax(scores.masked_fill(future, -math.inf), -1) @ v_BHTK
    return heads(y.transpose(1, 2).reshape(B, T, D)) @ proj.T


def mlp(block, x, hidden=same):
    h = x @ block.mlp.fc1.weight.T
    return hidden(h * (1 + torch.erf(h / math.sqrt(2))) / 2) @ block.mlp.fc2.weight.T


def pre(block, x, before=layer_norm, after=same, **sites):
    x = x + after(attention(block, before(x), **sites))
    return x + after(mlp(block, before(x)))


def post(block, x, a=1.0, before=same):
    x = layer_norm(a * x + attention(block, before(x)))
    return layer_norm(a * x + mlp(block, before(x)))


def scaled(block, x, layer):
    norm = lambda x: layer_norm(x) / math.sqrt(layer + 1)  # noqa: E731
    return pre(block, x, before=norm)


def sub(block, x):
    x = x + attention(block, layer_norm(x), heads=layer_norm)
    return x + mlp(block, layer_norm(x), hidden=layer_norm)


def hybrid(block, x):
    y = x + attention(block, x, q=layer_norm, k=layer_norm, v=layer_norm)
    return mlp(block, layer_norm(y)) + layer_norm(y)


def only(block, x, after_attention=same, after_mlp=same, before_attention=layer_norm):
    x = x + after_attention(attention(block, before_attention(x)))
    return x + after_mlp(mlp(block, layer_norm(x)))


QK = {"q": layer_norm, "k": layer_norm}
OLMO = {"q": over_heads(rms_norm), "k": over_heads(rms_norm)}
# name: one block, x and the block's number to x; the norm before the head; the embedding; the logits
BLOCKS = {
    "post_ln": (lambda b, x, n: post(b, x), same),
    "deep_norm": (lambda b, x, n: post(b, x, a=8**0.25), same),
    "keel": (lambda b, x, n: post(b, x, a=8.0, before=layer_norm), same),
    "mix_ln": (lambda b, x, n: post(b, x) if n == 0 else pre(b, x), layer_norm),
    "ln_scaling": (scaled, layer_norm),
    "sub_ln": (lambda b, x, n: sub(b, x), layer_norm),
    "hybrid_norm": (lambda b, x, n: hybrid(b, x), layer_norm),
    "peri_ln": (lambda b, x, n: pre(b, x, after=layer_norm), layer_norm, layer_norm),
    "olmo2": (lambda b, x, n: pre(b, x, same, rms_norm, **OLMO), rms_norm),
    "gemma2": (lambda b, x, n: pre(b, x, rms_norm, rms_norm, score=capped(50)), rms_norm, same, capped(30)),
    "gemma3": (lambda b, x, n: pre(b, x, rms_norm, rms_norm, q=rms_norm, k=rms_norm), rms_norm),
    "fc": (lambda b, x, n: pre(b, x, after=layer_norm), layer_norm),
    "proj": (lambda b, x, n: only(b, x, after_attention=layer_norm), layer_norm),
    "fc2": (lambda b, x, n: only(b, x, after_mlp=layer_norm), layer_norm),
    "attn_none": (lambda b, x, n: only(b, x, before_attention=same), layer_norm),
    "post_qkv": (lambda b, x, n: pre(b, x, v=layer_norm, **QK), layer_norm),
    "output_cap": (lambda b, x, n: pre(b, x), layer_norm, same, capped(30)),
    "dyt": (lambda b, x, n: pre(b, x, before=torch.tanh), torch.tanh, lambda x: math.sqrt(D) * x),
    "derf": (lambda b, x, n: pre(b, x, before=half_erf), lambda x: half_erf(x)),
}


def half_erf(x):
    return torch.erf(x / 2)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_strategy_is_its_papers_formula(composed, name):
    block_of, final, embed, logits = (*BLOCKS[name], same, same)[:4]
    cfg = composed(f"norm={name}")
    model = small_model(cfg, num_layers=LAYERS, positions="learned", init_std=0.5)
    tokens = random_tokens(3, 7)
    x = embed(model.embedding.weight[tokens] + model.positions.embedding.weight[:7])
    for number, block in enumerate(model.blocks):
        x = block_of(block, x, number)
    expected = logits(final(x) @ model.head.weight.T)
    torch.testing.assert_close(model(tokens), expected, rtol=1e-3, atol=1e-4)


def test_ngpt_is_its_papers_formula(composed):
    """Equations 2 to 21, with the initial scales: alpha 0.05, s_qk 1, s_u 1 (times sqrt(D)), s_z 1."""
    model = small_model(composed("norm=ngpt"), num_layers=LAYERS, positions="learned", init_std=0.5).eval()
    tokens = random_tokens(3, 7)
    reads = {
        name: its.parametrizations.weight.original
        for name, its in model.named_modules()
        if hasattr(its, "parametrizations")
    }
    x = unit(model.embedding.weight[tokens] + model.positions.embedding.weight[:7])
    for number in range(LAYERS):
        at = f"blocks.{number}."
        q, k, v = (
            (x @ unit(w).T).view(3, 7, H, K).transpose(1, 2) for w in reads[at + "attention.qkv"].split(D)
        )
        score = unit(q) @ unit(k).transpose(2, 3) * math.sqrt(K)
        score = score.masked_fill(torch.ones(7, 7, dtype=torch.bool).triu(1), -math.inf)
        heads = (torch.softmax(score, -1) @ v).transpose(1, 2).flatten(2)
        branch = unit(heads @ unit(reads[at + "attention.proj"].T))
        x = unit(x + 0.05 * (branch - x))
        hidden = x @ unit(reads[at + "mlp.fc1"]).T * math.sqrt(D)
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        branch = unit(hidden @ unit(reads[at + "mlp.fc2"].T))
        x = unit(x + 0.05 * (branch - x))
    expected = x @ unit(reads["head"]).T
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.train()(tokens), expected, rtol=1e-4, atol=1e-5)


def test_ngpts_weights_are_put_back_to_length_1_before_each_forward_that_is_trained_on(composed):
    model = small_model(composed("norm=ngpt"), init_std=0.5)
    stored = model.blocks[0].mlp.fc2.parametrizations.weight.original
    optimizer, tokens = torch.optim.SGD(model.parameters(), lr=3.0), random_tokens(3, 7)
    for _ in range(2):
        loss = model(tokens).logsumexp(-1).mean() + model.head.weight.square().sum()  # a second reader
        torch.testing.assert_close(stored.norm(dim=0), torch.ones(stored.shape[1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert (stored.norm(dim=0) - 1).abs().max() > 1e-3
    before = stored.clone()
    with torch.no_grad():
        model(tokens)
    model.eval()(tokens)
    assert torch.equal(stored, before)


@pytest.mark.parametrize("layers", [1, 6, 24])
def test_deep_norms_and_keels_constants(composed, layers):
    """DeepNet, table of section 4.3: (2 M)^(1/4) for a decoder of M layers. Keel: 2 M sublayers."""
    for norm, constant in (("deep_norm", math.sqrt(math.sqrt(2 * layers))), ("keel", 2.0 * layers)):
        with torch.device("meta"):
            model = small_model(composed(f"norm={norm}"), num_layers=layers)
        for its in (model.blocks[0].attn_sum, model.blocks[-1].mlp_sum):
            assert isinstance(its, Highway)
            assert its.factor == pytest.approx(constant)


def test_layer_norm_scaling_counts_layers_from_one(composed):
    model = small_model(composed("norm=ln_scaling"), num_layers=9)
    factors = [[its.factor for its in block.modules() if isinstance(its, Scale)] for block in model.blocks]
    assert factors == [pytest.approx([1 / math.sqrt(layer)] * 2) for layer in range(1, 10)]


@pytest.mark.parametrize(("layers", "post_norm"), [(4, 1), (12, 3), (6, 2), (2, 1)])
def test_mix_ln_is_post_norm_in_the_first_quarter(composed, layers, post_norm):
    with torch.device("meta"):
        model = small_model(composed("norm=mix_ln"), num_layers=layers)
    for sites in (("attn_in", "attn_residual"), ("mlp_in", "mlp_residual")):
        before, after = ([type(getattr(its, name)).__name__ for its in model.blocks] for name in sites)
        assert before == ["Identity"] * post_norm + ["LayerNorm"] * (layers - post_norm)
        assert after == ["LayerNorm"] * post_norm + ["Identity"] * (layers - post_norm)


def test_ngpts_step_sizes_move_by_more_than_the_learning_rate(composed):
    step = small_model(composed("norm=ngpt"), width=64).blocks[0].attn_sum
    assert isinstance(step, Interpolate)
    torch.testing.assert_close(step.weight, torch.full((64,), 1 / 8))
    torch.testing.assert_close(step.factor(), torch.full((64,), 0.05))
    with torch.no_grad():
        step.weight -= 1 / 8 + 0.01  # a negative step size is taken as positive
    x_BTD, branch_BTD = torch.randn(2, 3, 64), torch.randn(2, 3, 64)
    torch.testing.assert_close(step(x_BTD, branch_BTD), x_BTD + 0.01 * 0.05 * 8 * (branch_BTD - x_BTD))


CHOSEN = {"olmo2": "RMSNorm", "gemma2": "RMSNorm", "gemma3": "RMSNorm", "dyt": "DyT", "derf": "Derf"}


def norm_layer(cfg):
    return cfg.norm_layer._target_.rpartition(".")[2]


@pytest.mark.parametrize("norm", NORMS)
def test_a_strategy_may_choose_the_norm_layer(composed, norm):
    assert norm_layer(composed(f"norm={norm}")) == CHOSEN.get(norm, "LayerNorm")


@pytest.fixture
def of_a_sweep(tmp_path):
    """What a sweep composes for one of its variants, from all overrides that make it."""
    (tmp_path / "experiment").mkdir()
    for name, lines in {"theirs": ["norm: olmo2"], "own": ["norm: olmo2", "norm_layer: layer_norm"]}.items():
        text = "# @package _global_\ndefaults:\n" + "".join(f"  - override /{line}\n" for line in lines)
        (tmp_path / f"experiment/{name}.yaml").write_text(text)
    register()

    def load(*overrides):
        with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
            loader = GlobalHydra.instance().config_loader()
            path = [f"hydra.searchpath=[file://{tmp_path}]"]
            return loader.load_sweep_config(
                loader.load_configuration("train", path, RunMode.MULTIRUN), [*overrides]
            )

    return load


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["norm=olmo2"], "RMSNorm"),
        (["norm=olmo2", "norm_layer=layer_norm"], "LayerNorm"),
        (["norm_layer=layer_norm", "norm=olmo2"], "LayerNorm"),
        (["experiment=smoke", "norm=olmo2"], "RMSNorm"),
        (["experiment=smoke", "norm_layer=batch_norm", "norm=olmo2"], "BatchNorm"),
        (["experiment=theirs"], "RMSNorm"),
        (["experiment=theirs", "norm=baseline"], "LayerNorm"),
        (["experiment=theirs", "norm_layer=layer_norm"], "LayerNorm"),
        (["experiment=own"], "LayerNorm"),
        (["experiment=own", "norm_layer=rms_norm"], "RMSNorm"),
    ],
)
def test_the_users_norm_layer_wins_over_the_strategys(of_a_sweep, overrides, wanted):
    assert norm_layer(of_a_sweep(*overrides)) == wanted
