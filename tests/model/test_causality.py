"""No logit depends on a later token: shown by gradients, for every variant there is."""

import math

import pytest
import torch
from model_helpers import NORMS, random_tokens, small_model
from torch import nn

import redline.model.attention as attention_module
from redline.model import SITES

LENGTH = 7
# Each norm with both positions and both paths.
CASES = [
    pytest.param(norm, positions, path, id=f"{norm}-{positions}-{path}")
    for norm in NORMS
    for positions, path in (("rope", "explicit"), ("learned", "fused"))
]


def influence(model):
    """(T,T): the largest |d logits[t] / d embedding[s]|, row t, column s."""
    tokens = random_tokens(1, LENGTH)
    leaf = model.embedding.weight[tokens].detach().requires_grad_()
    handle = model.embedding.register_forward_hook(lambda *_: leaf)
    # A random mixture of a position's logits: the sum of all is blind to what shifts them alike.
    logits_TV = model(tokens)[0]
    mixed_T = logits_TV @ torch.randn(32, generator=torch.Generator().manual_seed(2))
    handle.remove()
    rows = [torch.autograd.grad(mixed, leaf, retain_graph=True)[0] for mixed in mixed_T]
    return torch.stack([row[0].abs().amax(-1) for row in rows])


def large_scores(model):
    """Scores of about +-100 from the second token on, where the paper's caps of 50 act."""
    for block in model.blocks:
        block.attention.inner.scale *= 20
    return model


def sees_the_future(model):
    return bool((influence(model).triu(1) != 0).any())


@pytest.mark.parametrize(("norm", "positions", "path"), CASES)
def test_a_logit_depends_on_all_tokens_up_to_its_own_and_on_none_after(composed, norm, positions, path):
    cfg = composed(f"norm={norm}")
    model = small_model(cfg, positions=positions, attention=path, init_std=0.3).train()
    influence_TT = influence(model)
    assert (influence_TT.triu(1) == 0).all()
    assert (influence_TT[torch.ones(LENGTH, LENGTH).tril() == 1] > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_large_scores_let_nothing_through(composed, norm):
    cfg = composed(f"norm={norm}")
    model = small_model(cfg, attention="explicit", init_std=0.6).train()
    assert not sees_the_future(large_scores(model))


class Mixed(nn.Module):
    """What a transform may do at a site: mix a token's channels; scores one by one; two inputs to one."""

    def __init__(self, site):
        super().__init__()
        # A masked score is minus infinity, which exp makes no probability.
        self.alone = {"BHTT": torch.tanh, "BHTT->BHTT": torch.exp}.get(site.axes)

    def forward(self, x, *others):
        x = sum(others[:1], x)
        return x + 0.5 * x.roll(1, -1) if self.alone is None else self.alone(x)


class OverTokens(nn.Module):
    """What it may not: look at other tokens, for scores and probabilities at other queries."""

    def __init__(self, site):
        super().__init__()
        self.masked = site.name == "softmax"

    def forward(self, x, *others):
        x = x.exp() if self.masked else sum(others[:1], x)
        return x - x.mean(-2, keepdim=True)


@pytest.mark.parametrize("name", [name for name in SITES if name != "linear"])
def test_no_site_shows_a_transform_the_future_unless_it_looks_at_other_tokens(composed, name):
    cfg = composed()
    for transform, leaks in ((Mixed, False), (OverTokens, True)):
        cfg.norm_strategy[name] = {"_target_": f"{__name__}.{transform.__name__}"}
        assert sees_the_future(small_model(cfg, init_std=0.3).train()) == leaks


def mask_before_score(q, k, v, scale, dropout, mask_TT, score, softmax, prob):
    """The mistake: the mask is a score like any other, and the cap makes it finite."""
    return prob(softmax(score(q @ k.transpose(2, 3) * scale + mask_TT))) @ v


@pytest.mark.parametrize("cap", [1.0, 5.0, 50.0])
@pytest.mark.parametrize("norm", ["soft_cap", "qk_cap"])
def test_a_cap_after_the_mask_would_be_caught(composed, monkeypatch, norm, cap):
    cfg = composed(f"norm={norm}")
    cfg.norm_strategy.score.cap = cap
    model = small_model(cfg, init_std=0.3)
    assert not sees_the_future(model)
    assert not sees_the_future(large_scores(small_model(cfg, init_std=0.6)))
    monkeypatch.setattr(attention_module, "explicit", mask_before_score)
    assert sees_the_future(model)


def test_a_mask_that_is_one_token_late_would_be_caught(composed):
    model = small_model(composed("norm=baseline"), attention="explicit", init_std=0.3)
    model.mask_TT = torch.full((8, 8), -math.inf).triu(2)
    assert sees_the_future(model)
