"""Perplexity is exp of the mean loss over all tokens, however the batches fall."""

import itertools
import math

import pytest
import torch
from torch import nn

from redline.model import MappedModel, SiteMap
from redline.training.gradients import GradientSteps
from redline.training.module import LanguageModel
from redline.training.precision import precision_plugin


class Table(MappedModel):
    """Logits looked up by token: what a model says, without a model."""

    def __init__(self, logits_VV):
        super().__init__()
        self.logits_VV = nn.Parameter(logits_VV)

    @property
    def site_map(self):
        return SiteMap(())

    def forward(self, tokens_BT):
        return self.logits_VV[tokens_BT]


def validated(logits_VV, batches):
    model = LanguageModel(
        Table(logits_VV), lr=1.0, terms={}, optimizer=None, schedule=None, gradient=GradientSteps({})
    )
    logged = {}
    model.log_dict = logged.update
    for batch_idx, tokens_BS in enumerate(batches):
        model.validation_step(tokens_BS, batch_idx)
    model.on_validation_epoch_end()
    return {key: float(value) for key, value in logged.items()}


def written_out(logits_VV, batches):
    total, count = 0.0, 0
    for tokens_BS in batches:
        for row in tokens_BS.tolist():
            for before, after in itertools.pairwise(row):
                logits = logits_VV[before].tolist()
                top = max(logits)
                total += top + math.log(sum(math.exp(x - top) for x in logits)) - logits[after]
                count += 1
    return total / count


def test_perplexity_is_exp_of_the_mean_loss():
    torch.manual_seed(0)
    logits_VV = torch.randn(11, 11) * 3
    batches = [torch.randint(0, 11, (4, 6)), torch.randint(0, 11, (2, 6)), torch.randint(0, 11, (4, 6))]
    logged, loss = validated(logits_VV, batches), written_out(logits_VV, batches)
    assert logged["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert logged["val/perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)


def test_a_token_that_the_model_rules_out_costs_its_loss_and_not_infinity():
    # Diverging runs have logits of hundreds; a probability below 1e-38 is 0 in fp32.
    logits_VV = torch.zeros(4, 4)
    logits_VV[0, 1] = 200.0
    batches = [torch.tensor([[0, 1, 2, 3, 0, 1], [0, 2, 1, 3, 2, 1]])]
    assert validated(logits_VV, batches)["val/loss"] == pytest.approx(written_out(logits_VV, batches))


def test_a_second_validation_starts_anew():
    logits_VV = torch.eye(5)
    model = LanguageModel(
        Table(logits_VV), lr=1.0, terms={}, optimizer=None, schedule=None, gradient=GradientSteps({})
    )
    logged = {}
    model.log_dict = logged.update
    for tokens_BS in (torch.zeros(2, 4, dtype=torch.int64), torch.tensor([[0, 1, 2, 3]])):
        model.validation_step(tokens_BS, 0)
        model.on_validation_epoch_end()
    assert float(logged["val/loss"]) == pytest.approx(written_out(logits_VV, [torch.tensor([[0, 1, 2, 3]])]))


def test_the_mean_over_many_tokens_is_in_fp32_also_with_weights_in_bf16():
    torch.manual_seed(0)
    model = LanguageModel(
        Table(torch.randn(9, 9)), lr=1.0, terms={}, optimizer=None, schedule=None, gradient=GradientSteps({})
    )
    plugin = precision_plugin("bf16-true", torch.device("cpu"))
    model = plugin.convert_module(model)
    logged = {}
    model.log_dict = logged.update
    tokens_BS = torch.randint(9, (16, 257))
    with plugin.val_step_context():
        for part_BS in tokens_BS.split(1):
            model.validation_step(part_BS, 0)
        model.on_validation_epoch_end()
    logits_VV = model.model.logits_VV.detach()
    assert logits_VV.dtype == torch.bfloat16
    chosen = torch.log_softmax(logits_VV.double(), -1)[tokens_BS[:, :-1], tokens_BS[:, 1:]]
    assert logged["val/loss"].item() == pytest.approx(-chosen.mean().item(), rel=1e-5)
