"""Of every mapped family: what a strategy leaves stays, and what it changes lets no future through."""

import copy

import pytest
import torch
from families import FAMILIES, MAPS, NORMS, ONE_OF_EACH, V, config_of, small, tokens

from redline.errors import UserError
from redline.huggingface.parts import Block
from redline.training.build import build_model

NORM = {"_target_": "redline.model.transforms.norm"}
SCALE = {"_target_": "redline.model.transforms.Scale", "factor": 1.0}
MAPS_OF = {name: its for its in MAPS.values() for name in its.get("types", [])}
PARALLEL = {"deep_norm", "hybrid_norm", "keel", "mix_ln", "ngpt", "post_ln"}  # these change the sums
# Strategies whose norms these have themselves.
THEIR_OWN = {
    "qwen3": {"qk"},
    "gemma2": {"fc", "fc2", "gemma2", "output_cap", "proj", "soft_cap"},
    "gemma3_text": {"fc", "fc2", "gemma3", "proj", "qk", "qk_fc"},
    "cohere": {"output_cap"},  # its logits are too small for the cap to show
    "olmo3": {"attn_none", "fc", "fc2", "proj"},
}


def untouched(peers, model):
    """Their own code with the same weights, computed as they do it."""
    config = copy.deepcopy(model.network.config)
    for key, value in (("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)):
        if config.model_type == "gemma2":
            setattr(config, key, value)
    kind = peers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    theirs = kind._from_config(config, attn_implementation="eager")
    pairs = zip(theirs.parameters(), model.parameters(), strict=True)
    with torch.no_grad():
        for weight, ours in pairs:
            weight.copy_(ours)
    return theirs


def gradients(model, logits):
    logits.square().mean().backward()
    return [weight.grad for weight in model.parameters()]


def test_every_type_of_every_map_is_built_here():
    assert {*FAMILIES} == {name for its in MAPS.values() for name in its.get("types", [])}


@pytest.mark.parametrize("family", FAMILIES)
def test_native_is_their_own_model(composed, peers, family):
    model = small(composed, family, "norm=native")
    theirs = untouched(peers, model)
    ours, expected = model(tokens()), theirs(tokens()).logits
    assert expected.std() > 0.003
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    for got, wanted in zip(gradients(model, ours), gradients(theirs, expected), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_so_it_is_with_blocks_of_ours_whose_sites_change_nothing(composed, family):
    cfg = config_of(composed, family, "norm=native")
    native, model = drawn(cfg), None
    own = MAPS_OF[family]["norms"]
    for site in ("embed", "q", "v", "attn_branch", "proj_in", "fc1_out", "fc2_in", "mlp_residual"):
        span = {"span": "full" if family.startswith("olmo") else "head"} if site == "q" else {}
        has = site in own and not (site == "q" and family in ("gemma2", "phi"))  # where it is optional
        cfg.norm_strategy[site] = {**NORM, **span, "then": SCALE} if has else SCALE
    model = drawn(cfg)
    assert isinstance(model.site_map.layers[1].block, Block)
    torch.testing.assert_close(model(tokens()), native(tokens()), rtol=1e-5, atol=1e-5)


def drawn(cfg):
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10.0 if weight.ndim > 1 else 1.0)
    return model


def influence(model):
    """(T,T): the largest |d logits[t] / d embedding[s]|, row t, column s; and the logits."""
    embedding, leaves = model.network.get_input_embeddings(), []

    def leaf(module, inputs, output):
        leaves.append(output.detach().requires_grad_())
        return leaves[0]

    handle = embedding.register_forward_hook(leaf)
    logits_TV = model(tokens(1, 4))[0]
    handle.remove()
    mixed_T = logits_TV @ torch.randn(V, generator=torch.Generator().manual_seed(2))
    rows = [torch.autograd.grad(mixed, leaves[0], retain_graph=True)[0] for mixed in mixed_T]
    return torch.stack([row[0].abs().amax(-1) for row in rows]), logits_TV


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_every_strategy_acts_and_no_logit_depends_on_a_later_token(composed, peers, family):
    _, native_TV = influence(small(composed, family, "norm=native").train())
    refused, same = {}, set()
    for norm in NORMS:
        try:
            model = small(composed, family, f"norm={norm}").train()
        except UserError as error:
            refused[norm] = str(error)
            continue
        influence_TT, logits_TV = influence(model)
        assert (influence_TT.triu(1) == 0).all(), norm
        assert (influence_TT.diagonal() > 0).all(), norm
        if torch.allclose(logits_TV, native_TV):
            same.add(norm)
    assert same == {"native", "baseline", "qk_clip"} | THEIR_OWN.get(family, set())
    assert all("norm_strategy." in its and "\n" not in its for its in refused.values())
    assert {*refused} == (PARALLEL if MAPS_OF[family].get("parallel") else set())
