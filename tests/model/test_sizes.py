"""How many parameters each model has, counted on the meta device: no memory for weights."""

import pytest
import torch
from model_helpers import MODELS, NORMS

from redline.training.build import build_model

# parameters, and the share by which a name may be off
SIZES = {
    "tiny": (0.5e6, 0.1),
    "mini": (1.0e6, 0.1),
    "small": (7.0e6, 0.1),
    "gpt2": (124e6, 0.01),
    "paper_830m": (830e6, 0.01),
}


def count(cfg):
    with torch.device("meta"):
        model = build_model(cfg)
    assert all(parameter.is_meta for parameter in model.parameters())
    return sum(parameter.numel() for parameter in model.parameters()), model.head.weight.numel()


@pytest.mark.parametrize("model", sorted({*MODELS} - {"huggingface"}))  # which has no size of its own
def test_a_model_has_the_size_its_file_says(composed, model):
    total, head = count(composed(f"model={model}"))
    if model == "gpt2":
        total -= head  # GPT-2's head is its embedding, counted once; ours is not tied
    if model in SIZES:
        wanted, share = SIZES[model]
        assert total == pytest.approx(wanted, rel=share)


def test_every_named_size_has_a_file():
    assert set(SIZES) <= set(MODELS)


@pytest.mark.parametrize("norm", NORMS)
def test_every_variant_builds_on_the_papers_model(composed, norm):
    cfg = composed(f"norm={norm}", "model=paper_830m", "data.token_type=uint32")
    assert count(cfg)[0] == pytest.approx(830e6, rel=0.03)  # a gate is one matrix more in each block
