"""Logits and entropies of sampled queries, against attention written out."""

import math

import pytest
import torch
from monitor_helpers import D, H, L, T, read, small_model, step, twin
from torch import nn

import redline.model.attention as attention_module
from redline.monitor import AttentionEntropy, MaxLogit, Tap
from redline.monitor.sampled_logits import on_logits


class Listening(nn.Module):
    """In a place of `score`: keeps what comes."""

    def __init__(self, then):
        super().__init__()
        self.then, self.came = then, None

    def forward(self, score):
        self.came = score.detach()
        return self.then(score)


def heard(model):
    """Per layer the scores (B,H,T,T) that enter the site `score` on the explicit path, not masked."""
    for block in model.blocks:
        inner = block.attention.inner
        inner.score, inner.fusable = Listening(inner.score), False
    step(model, [])
    return [block.attention.inner.score.came.view(-1, H, T, T) for block in model.blocks]


def causal(scores):
    return scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf)


def capped(model, cap):
    for block in model.blocks:
        if hasattr(block.attention.inner.score, "cap"):
            block.attention.inner.score.cap = cap
    return model


def layer_and_head(values, prefix):
    return torch.tensor(
        [[values[f"{prefix}/layer_{layer:02d}/head_{head:02d}"] for head in range(H)] for layer in range(L)]
    )


@pytest.mark.parametrize("norm", ["baseline", "qk_cap", "soft_temp", "soft_clip", "sink"])
def test_with_every_query_sampled_both_are_those_of_the_explicit_attention(norm):
    """The logit is before the cap, with the fixed scale; the entropy is after the cap and before the clip, of
    what the tokens share between them.
    """
    cap = 1.0
    model = capped(small_model(norm), cap)
    scores = heard(twin(model))
    logits = read(model, MaxLogit(queries=24, sequences=3, per_head=True))
    expected = torch.stack([causal(score).amax((0, 2, 3)) for score in scores])
    torch.testing.assert_close(layer_and_head(logits, "attention/max_logit"), expected)
    assert logits["attention/max_logit"] == pytest.approx(expected.max().item())
    assert len(logits) == L * H + 1
    if norm == "qk_cap":
        assert logits["attention/max_logit"] > cap

    model = capped(small_model(norm), cap)
    entropies = read(model, AttentionEntropy(queries=24, sequences=3))
    for layer, score in enumerate(scores):
        if norm == "qk_cap":
            score = cap * torch.tanh(score / cap)
        log_p = torch.log_softmax(causal(score), -1)
        expected = -(log_p.exp() * log_p.nan_to_num(neginf=0.0)).sum(-1).mean((0, 2))
        torch.testing.assert_close(layer_and_head(entropies, "attention/entropy")[layer], expected)


def test_the_entropy_is_of_what_stands_in_for_the_softmax():
    model = small_model("softpick")
    entropies = read(model, AttentionEntropy(queries=24, sequences=3))
    none = 0
    for layer, score in enumerate(heard(twin(small_model("softpick")))):
        above = causal(score).exp().sub(1).relu()
        for head in range(H):
            rows = [row[row > 0] / row.sum() for row in above[:, head].flatten(0, 1)]
            none += sum(not len(row) for row in rows)
            expected = sum(-(row * row.log()).sum().item() for row in rows) / len(rows)
            value = entropies[f"attention/entropy/layer_{layer:02d}/head_{head:02d}"]
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert none, "a query that attends to nothing"


def test_by_default_one_number_for_the_whole_model():
    assert set(read(small_model(), MaxLogit(128, 8, per_head=False))) == {"attention/max_logit"}


@pytest.mark.parametrize(
    ("queries", "sequences", "shape"),
    [(128, 8, (3, 8)), (6, 3, (3, 2)), (7, 2, (2, 3)), (5, 2, (2, 2)), (1, 1, (1, 1)), (4, 4, (3, 1))],
)
def test_no_more_queries_than_allowed_and_the_last_token_among_them(queries, sequences, shape):
    model, came = small_model(), {}
    tap = Tap()
    on_logits(tap, model, queries, sequences, lambda layer, _, sample: came.update({layer: sample}))
    whole = heard(twin(model))
    step(model, [tap])
    for layer, sample in came.items():
        logit_NHST, mask_ST = sample.logits(), sample.mask_ST
        N, heads, S, tokens = logit_NHST.shape
        assert shape == (N, S)
        assert queries >= N * S
        assert (heads, tokens) == (H, T)
        sees = (mask_ST == 0).sum(-1)
        assert sees[-1] == T, "the last token sees all"
        assert len(set(sees.tolist())) == S
        # Each is a row of the whole.
        for row, seen in zip(logit_NHST.transpose(1, 2).reshape(-1, H, T), sees.repeat(N), strict=True):
            rows = whole[layer][:, :, seen - 1]
            assert any(torch.allclose(row, other, atol=1e-5) for other in rows)


def test_the_fused_path_stays(monkeypatch):
    calls = []
    fused = attention_module.fused
    monkeypatch.setattr(attention_module, "fused", lambda *args: calls.append(1) or fused(*args))
    monkeypatch.setattr(attention_module, "explicit", None)
    read(small_model("qk", attention="fused"), AttentionEntropy(128, 8))
    assert len(calls) == L


def test_a_logit_that_is_not_a_number_is_not_lost():
    model = small_model()
    with torch.no_grad():
        model.blocks[1].attention.qkv.weight[0, 0] = math.nan
    values = read(model, MaxLogit(128, 8, per_head=True))
    assert math.isnan(values["attention/max_logit"])
    assert math.isfinite(values["attention/max_logit/layer_00/head_00"])


def test_logits_are_not_rounded_to_bf16():
    model = small_model(attention="fused")
    taps = [MaxLogit(128, 8, per_head=True), AttentionEntropy(128, 8)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for tap in taps:
            tap.attach(model)
        step(model, taps)
    logits = [value for name, value in taps[0].values.items() if "head" in name]
    assert all(value.dtype == torch.float32 for value in logits)
    assert any(value.item() != value.bfloat16().item() for value in logits)
    assert D // H == 8
