"""Our norms and strategies against Hugging Face's, with copied weights: norms, attention and residual stream.

Theirs have a gated MLP, so ours stands in for it; the activation and the rotary positions are the same.
"""

import torch
from model_helpers import random_tokens, site, small_model

from redline.model.transforms import LayerNorm, RMSNorm

SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "max_position_embeddings": 8,
    "attn_implementation": "eager",
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64, "attention_bias": False}
ROPE = {"rope_type": "default", "rope_theta": 1e4}


def randomised(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    return model.eval()


@torch.no_grad()
def take_weights(ours, theirs, sites, offset, embedding_scale=1.0):
    """``sites``: our site of a block to their name. ``offset``: what their gain adds to its weight."""
    ours.embedding.weight.copy_(theirs.model.embed_tokens.weight * embedding_scale)
    for block, layer in zip(ours.blocks, theirs.model.layers, strict=True):
        linears = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        block.attention.qkv.weight.copy_(torch.cat([its.weight for its in linears]))
        block.attention.proj.weight.copy_(layer.self_attn.o_proj.weight)
        for name, their_name in sites.items():
            gain = layer.get_submodule(their_name).weight + offset
            block.get_submodule(name).weight.copy_(gain)
        layer.mlp = torch.nn.Sequential(block.mlp.fc1, torch.nn.GELU(), block.mlp.fc2)
    ours.final.weight.copy_(theirs.model.norm.weight + offset)
    ours.head.weight.copy_(theirs.lm_head.weight)


AFTER = {
    "attention.proj_out": "post_attention_layernorm",
    "mlp.fc2_out": "post_feedforward_layernorm",
}
AROUND = {**AFTER, "attn_in": "input_layernorm", "mlp_in": "pre_feedforward_layernorm"}
QK = {"attention.q": "self_attn.q_norm", "attention.k": "self_attn.k_norm"}


def compared(ours, theirs, *args):
    take_weights(ours, theirs, *args)
    # Their MLP is ours, whose last step is not its site's norm but their own.
    tokens = random_tokens(3, 8)
    with torch.no_grad():
        wanted = theirs(tokens).logits
        assert wanted.std() > 0.1
        torch.testing.assert_close(ours.eval()(tokens), wanted, rtol=1e-5, atol=1e-5)


def test_olmo2(composed, peers):
    config = peers.Olmo2Config(**SHAPE, hidden_act="gelu", rope_parameters=ROPE, attention_bias=False)
    theirs = randomised(peers.Olmo2ForCausalLM(config))
    ours = small_model(composed("norm=olmo2"), init_std=0.3, rope_base=1e4)
    compared(ours, theirs, AFTER | QK, 0.0)


def test_gemma2(composed, peers):
    config = peers.Gemma2Config(**SHAPE, **GEMMA, rope_parameters=ROPE, hidden_activation="gelu")
    assert (config.attn_logit_softcapping, config.final_logit_softcapping) == (50.0, 30.0)
    theirs = randomised(peers.Gemma2ForCausalLM(config))
    ours = small_model(composed("norm=gemma2"), init_std=0.3, rope_base=1e4)
    compared(ours, theirs, AROUND, 1.0, 4.0)


def test_gemma3(composed, peers):
    ropes = {"full_attention": ROPE, "sliding_attention": ROPE}
    config = peers.Gemma3TextConfig(**SHAPE, **GEMMA, rope_parameters=ropes, hidden_activation="gelu")
    theirs = randomised(peers.Gemma3ForCausalLM(config))
    ours = small_model(composed("norm=gemma3"), init_std=0.3, rope_base=1e4)
    compared(ours, theirs, AROUND | QK, 1.0, 4.0)


def test_peri_ln_is_gemma_3_without_qk_norm_and_with_a_norm_of_the_embedding(composed, peers):
    ropes = {"full_attention": ROPE, "sliding_attention": ROPE}
    config = peers.Gemma3TextConfig(**SHAPE, **GEMMA, rope_parameters=ropes, hidden_activation="gelu")
    theirs = randomised(peers.Gemma3ForCausalLM(config))
    for layer in theirs.model.layers:
        layer.self_attn.q_norm = layer.self_attn.k_norm = torch.nn.Identity()
    theirs.model.embed_tokens = torch.nn.Sequential(
        _Plain(theirs.model.embed_tokens.weight), theirs.model.norm.__class__(16, eps=1e-6)
    )
    theirs.model.embed_tokens.weight = theirs.model.embed_tokens[0].weight
    ours = small_model(composed("norm=peri_ln", "norm_layer=rms_norm"), init_std=0.3, rope_base=1e4)
    compared(ours, theirs, AROUND, 1.0)


class _Plain(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, tokens):
        return self.weight[tokens]


def test_layer_norm_and_rms_norm(peers):
    from transformers.models.cohere.modeling_cohere import CohereLayerNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    x_BTD = torch.randn(3, 5, 8) * 3 + 1
    for ours, theirs in (
        (LayerNorm(site("attn_in")), CohereLayerNorm(8, eps=1e-5)),
        (RMSNorm(site("attn_in")), LlamaRMSNorm(8, eps=1e-6)),
    ):
        with torch.no_grad():
            theirs.weight.copy_(torch.randn(8))
            ours.weight.copy_(theirs.weight)
        torch.testing.assert_close(ours(x_BTD), theirs(x_BTD), rtol=1e-5, atol=1e-5)
