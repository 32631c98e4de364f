import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from redline.training.build import build_module, build_optimizer
from redline.training.optimizers import decay_shares


@pytest.mark.parametrize("norm", ["baseline", "qk_fc", "layer_scale", "sigma_reparam"])
def test_matrices_decay_and_gains_do_not(run_cfg, norm):
    module = build_module(run_cfg(f"norm={norm}"))
    decayed, others = module.configure_optimizers()["optimizer"].param_groups
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    assert sum(len(group["params"]) for group in (decayed, others)) == len(names)
    matrices = ("embedding.weight", "qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "head.weight")
    for parameter in decayed["params"]:
        name = names[id(parameter)].replace("parametrizations.weight.original", "weight")
        assert name.endswith(matrices)
    assert len(decayed["params"]) == 2 + 4 * 2
    assert others["params"]


def decay_of_a_step(cfg, lr):
    """The share of a matrix that one step at the peak takes off, with no gradient; and of a gain."""
    matrix, gain = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = instantiate(cfg.optimizer)([matrix, gain], lr)
    matrix.grad, gain.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    assert torch.equal(gain.detach(), torch.ones(2))
    return 1 - matrix[0, 0].item()


@pytest.mark.parametrize("lr", [0.003, 0.03, 0.3])
def test_usual_decay_grows_with_the_lr_and_independent_decay_does_not(composed, lr):
    assert decay_of_a_step(composed("optimizer=adamw"), lr) == pytest.approx(0.1 * lr, rel=1e-3)
    independent = composed("optimizer=adamw_independent", "optimizer.weight_decay=0.01")
    assert decay_of_a_step(independent, lr) == pytest.approx(0.01, rel=1e-3)


def shares(make, **settings):
    return decay_shares(lambda parameters, lr: make(parameters, lr=lr, **settings))


def test_the_share_that_decay_takes_is_known_for_any_lr(composed):
    coupled = build_optimizer(composed("optimizer=adamw", "optimizer.weight_decay=0.3"))
    assert decay_shares(coupled) == (0.3, 0.0)
    independent = build_optimizer(composed("optimizer=adamw_independent"))
    assert decay_shares(independent) == (0.0, 1e-4)
    assert shares(torch.optim.SGD, weight_decay=0.1) == (0.1, 0.0)
    assert shares(torch.optim.Muon, weight_decay=0.1) == (0.1, 0.0)
    assert shares(torch.optim.SGD) == (0.0, 0.0)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop])
def test_a_decay_that_the_optimizer_rescales_takes_no_share_that_is_known(optimizer):
    assert shares(optimizer, weight_decay=0.1) == (0.0, 0.0)


def test_an_optimizer_that_does_not_take_such_a_weight_ends_nothing():
    assert shares(torch.optim.SGD, momentum=-1) == (0.0, 0.0)


def test_the_papers_constants(composed):
    for name, decay, independent in (("adamw", 0.1, False), ("adamw_independent", 1e-4, True)):
        spec = composed(f"optimizer={name}").optimizer
        assert (spec.betas, spec.eps) == ([0.9, 0.95], 1e-8)
        assert (spec.weight_decay, spec.independent) == (decay, independent)


def test_a_model_of_matrices_alone_can_be_optimized(composed):
    optimizer = instantiate(composed().optimizer)([nn.Parameter(torch.ones(2, 2))], 0.1)
    assert len(optimizer.param_groups) == 1
