"""What taps say of weights, their gradients and their changes, with and without a reparametrization."""

import pytest
import torch
from monitor_helpers import LINEARS, layered, read, small_model, step, twin

from redline.monitor import UpdateRatio, WeightGradNorm, WeightNorm


def norm(x):
    return x.detach().double().square().sum().sqrt().item()


def linears(model):
    return {
        f"{site}/layer_{layer:02d}": block.get_submodule(path)
        for layer, block in enumerate(model.blocks)
        for site, path in LINEARS.items()
    }


@torch.no_grad()
def effective(model):
    """gamma * W / sigma written out where there is a gamma, with the vectors of the last forward."""
    weights = {}
    for name, linear in linears(model).items():
        if hasattr(linear, "parametrizations"):
            [chain] = linear.parametrizations.weight
            original = linear.parametrizations.weight.original
            weights[name] = original * chain.gamma / (chain.u @ original @ chain.v)
        else:
            weights[name] = linear.weight.clone()
    return weights


@pytest.mark.parametrize("strategy", ["baseline", "sigma_reparam"])
def test_weights_gradients_and_changes(strategy):
    model, seen = small_model(strategy).train(), {}
    taps = {tap: tap(list(LINEARS)) for tap in (WeightGradNorm, UpdateRatio)}
    taps[WeightNorm] = WeightNorm(list(LINEARS), ["norm", "rms"])
    for tap in taps.values():
        tap.attach(model)
    unclipped, untouched = [], twin(model)
    for parameter in untouched.parameters():
        parameter.register_hook(lambda gradient: unclipped.append(gradient))
    step(untouched, [])

    step(model, list(taps.values()), between=lambda: seen.update(effective(model)))

    after = effective(model)
    for name, linear in linears(model).items():
        parametrized = hasattr(linear, "parametrizations")
        trained = linear.parametrizations.weight.original if parametrized else linear.weight
        gradients = [gradient for gradient in unclipped if gradient.shape == trained.shape]
        [scale] = {round(norm(g) / norm(trained.grad), 3) for g in gradients if torch.allclose(
            g / norm(g), trained.grad / norm(trained.grad), atol=1e-4)}  # fmt: skip
        assert scale > 2, "clipping is too mild to tell"
        root = taps[WeightNorm].values[f"weight_rms/{name}"].item()
        assert root == pytest.approx(seen[name].square().mean().sqrt().item(), rel=1e-5)
        gradient = norm(trained.grad) * scale
        assert taps[WeightNorm].values[f"weight_norm/{name}"].item() == pytest.approx(
            norm(seen[name]), rel=1e-5
        )
        got = taps[WeightGradNorm].values[f"weight_grad_norm/{name}"].item()
        assert got == pytest.approx(gradient, rel=1e-3)
        change = norm(after[name] - seen[name]) / norm(seen[name])
        got = taps[UpdateRatio].values[f"update_ratio/{name}"].item()
        assert got == pytest.approx(change, rel=1e-3)


def test_reading_a_reparametrized_weight_moves_nothing():
    watched, alone = small_model("sigma_reparam").train(), small_model("sigma_reparam").train()
    taps = [WeightNorm(list(LINEARS), ["norm"]), UpdateRatio(list(LINEARS))]
    for tap in taps:
        tap.attach(watched)
    for number in range(3):
        step(watched, taps, number=number)
        step(alone, [], number=number)
    for (name, a), b in zip(watched.state_dict().items(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert watched.blocks[0].mlp.fc1.parametrizations.weight[0].training


def test_the_sites_are_those_asked_for():
    assert set(read(small_model(), UpdateRatio(["fc1"]))) == layered("update_ratio", ["fc1"])
