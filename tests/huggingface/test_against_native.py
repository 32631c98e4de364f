"""A strategy put into one family is the family that has it natively: logits and gradients, weights copied."""

import pytest
import torch
from families import config_of, small, tokens

from redline.training.build import build_model

WIDE = {"head_dim": 8}


def taken(ours, theirs, names):
    """Copy the weights; ``names``: parts of a name with us -> with them. Returns pairs of parameters."""
    their_weights = dict(theirs.named_parameters())
    pairs = []
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            for part, other in names.items():
                name = name.replace(part, other)
            weight.copy_(their_weights[name])
            pairs.append((weight, their_weights.pop(name)))
    assert not their_weights
    return pairs


def compared(ours, theirs, names):
    pairs = taken(ours, theirs, names)
    got, wanted = ours(tokens()), theirs(tokens())
    assert wanted.std() > 0.1
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    torch.nn.functional.cross_entropy(got.flatten(0, 1), tokens().flatten()).backward()
    torch.nn.functional.cross_entropy(wanted.flatten(0, 1), tokens().flatten()).backward()
    for weight, other in pairs:
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chosen", [[], ["norm_layer=rms_norm"]])
def test_llama_with_qk_norm_is_qwen3(composed, peers, chosen):
    ours = small(composed, "llama", "norm=qk", *chosen, **WIDE)
    theirs = small(composed, "qwen3", "norm=native", "model.attention=explicit")
    own = "" if chosen else ".norm"
    names = {f"{site}_proj.{site}{own}.": f"{site}_norm." for site in "qk"}
    names |= {f"{site}_proj.theirs.": f"{site}_proj." for site in "qk"}
    names |= {"attn_in.": "input_layernorm.", "mlp_in.": "post_attention_layernorm."}
    compared(ours, theirs, {**names, ".attention.": ".self_attn."})


@pytest.mark.parametrize("chosen", [[], ["norm_layer=native"]])
def test_llama_with_olmo2s_norms_is_olmo2(composed, peers, chosen):
    ours = small(composed, "llama", "norm=olmo2", *chosen)
    theirs = small(composed, "olmo2", "norm=native", "model.attention=explicit", rms_norm_eps=1e-6)
    own = ".norm" if chosen else ""
    names = {f"{site}_proj.{site}{own}.": f"{site}_norm." for site in "qk"}
    names |= {f"{site}_proj.theirs.": f"{site}_proj." for site in "qk"}
    names |= {f"proj_out{own}.": "post_attention_layernorm.", f"fc2_out{own}.": "post_feedforward_layernorm."}
    compared(ours, theirs, {**names, ".attention.": ".self_attn."})


def test_gemma_with_gemma2s_norms_is_gemma2(composed, peers):
    """With its own class of norm, whose gain is 1 + w, and windows as long as the sequence."""
    ours = small(composed, "gemma", "norm=gemma2", "norm_layer=native", **WIDE)
    more = {"sliding_window": 64}
    theirs = small(composed, "gemma2", "norm=native", "model.attention=explicit", **more)
    names = {
        "proj_out.norm.": "post_attention_layernorm.",
        "fc2_out.norm.": "post_feedforward_layernorm.",
        "attn_in.": "input_layernorm.",
        "mlp_in.": "pre_feedforward_layernorm.",
        ".attention.": ".self_attn.",
    }
    assert ours.network.config.head_dim == theirs.network.config.head_dim == 8
    compared(ours, theirs, names)


def test_a_chosen_norm_layer_takes_the_place_of_all_their_norms(composed, peers):
    model = small(composed, "qwen3", "norm=native", "norm_layer=dyt")
    kinds = [type(its).__name__ for its in model.modules() if "Norm" in type(its).__name__]
    assert kinds == []
    assert sum(type(its).__name__ == "DyT" for its in model.modules()) == 2 * 4 + 1


def test_what_a_strategy_leaves_keeps_its_weights(composed, peers):
    """Also where it puts something behind a norm of theirs: as with weights that were trained before."""
    cfg = config_of(composed, "llama", "norm=ln_scaling")
    model = build_model(cfg)
    [own, scale] = model.site_map.layers[1].block.attn_in.children()
    assert type(own.norm).__name__ == "LlamaRMSNorm"
    assert scale.factor == pytest.approx(2**-0.5)
