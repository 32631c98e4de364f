"""`redline.watch` on loops that are not ours, and the callback for Hugging Face's Trainer."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import Tensor, nn

import redline
from redline.training.build import build_model
from redline.watching.watched import Watched


class Remembers(Logger):
    """What it is told."""

    name = version = "any"

    def __init__(self) -> None:
        super().__init__()
        self.metrics: dict[int, dict[str, float]] = {}
        self.tags: dict[str, str] = {}
        self.status = ""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.metrics.setdefault(step, {}).update(metrics)

    def set_tags(self, tags: dict[str, str]) -> None:
        self.tags |= tags

    def log_hyperparams(self, params: Any) -> None: ...

    def end(self, status: str) -> None:
        self.status = status


@pytest.fixture
def told() -> Remembers:
    return Remembers()


def small() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return net, torch.optim.SGD(net.parameters(), lr=0.1)


def loss_of(net: nn.Module, step: int) -> Tensor:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    return (net(x) - x.sum(-1, keepdim=True)).square().mean()


def trained(
    watched: Watched | None, net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, parts: int = 1
) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step, until it is said to have diverged."""
    found = []
    for step in range(steps):
        optimizer.zero_grad()
        losses = []
        for part in range(parts):
            losses.append(loss := loss_of(net, step * parts + part))
            (loss / parts).backward()
            if part == parts - 1:
                squares = [its.grad.square().sum() for its in net.parameters() if its.grad is not None]
                optimizer.step()
                found.append((torch.stack(losses).mean().item(), torch.stack(squares).sum().sqrt().item()))
            if watched is not None and watched.step(loss):
                return found
    return found


@pytest.mark.parametrize("parts", [1, 3])
def test_it_sees_what_the_loop_does_and_changes_nothing(told: Remembers, parts: int) -> None:
    net, optimizer = small()
    outputs: list[float] = []
    net[2].register_forward_hook(lambda _, __, out: outputs.append(out.detach().norm(dim=-1).mean().item()))
    with redline.watch(net, optimizer, every=2, loggers=[told]) as watched:
        seen = trained(watched, net, optimizer, 7, parts)
    assert [*told.metrics] == list(range(7))
    for step, (loss, grad_norm) in enumerate(seen):
        assert told.metrics[step]["train/loss"] == pytest.approx(loss, rel=1e-6)
        assert told.metrics[step]["train/grad_norm"] == pytest.approx(grad_norm, rel=1e-5)
        assert ("norm/linear/layer_02" in told.metrics[step]) == (step % 2 == 0)
        if step % 2 == 0:  # of the last micro-batch
            norm = outputs[step * parts + parts - 1]
            assert told.metrics[step]["norm/linear/layer_02"] == pytest.approx(norm, rel=1e-6)
            assert told.metrics[step]["train/lr"] == 0.1
    other, its = small()
    assert trained(None, other, its, 7, parts) == seen
    assert (told.status, told.tags["verdict"]) == ("FINISHED", "stable")


def test_it_says_that_a_run_has_diverged_and_by_which_rule(
    told: Remembers, caplog: pytest.LogCaptureFixture
) -> None:
    net, optimizer = small()
    optimizer.param_groups[0]["lr"] = 1e10
    with caplog.at_level(logging.WARNING), redline.watch(net, optimizer, loggers=[told]) as watched:
        seen = trained(watched, net, optimizer, 100)
    broke = next(step for step, its in enumerate(seen) if not all(map(math.isfinite, its)))
    assert len(seen) == broke + 2  # known one step late
    assert [its.message for its in caplog.records] == [f"step {broke}: diverged by non_finite"]
    assert told.tags["verdict"] == "diverged"
    assert (told.tags["reason"], told.tags["step"]) == ("non_finite", str(broke))


def test_rules_are_the_users_to_change(told: Remembers) -> None:
    rules = {"non_finite": None, "blow_up": {"patience": 0.1}, "no_return": None}
    net = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=2.0)
    watched = redline.watch(net, optimizer, max_steps=100, warmup_steps=5, divergence=rules, loggers=[told])
    seen = trained(watched, net, optimizer, 100)
    watched.close()
    assert 15 <= len(seen) < 20
    assert told.tags["reason"] == "blow_up"


def test_a_model_with_a_site_map_shows_its_blocks_and_warns_early(
    told: Remembers, composed: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = build_model(composed("experiment=smoke", "norm=baseline"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e3)
    with (
        caplog.at_level(logging.WARNING),
        redline.watch(model, optimizer, every=1, loggers=[told]) as watched,
    ):
        for _ in range(8):
            tokens = torch.randint(512, (4, 33))
            loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watched.step(loss)
    assert {"norm/qkv/layer_00", "rms/residual/layer_01", "attention/max_logit"} <= told.metrics[0].keys()
    assert any("expected to diverge" in its.message for its in caplog.records)
    assert "forecast_reason" in told.tags


def test_an_exception_ends_the_run_as_failed(told: Remembers) -> None:
    net, optimizer = small()
    with pytest.raises(ZeroDivisionError), redline.watch(net, optimizer, loggers=[told]):
        raise ZeroDivisionError
    assert told.status == "FAILED"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": 3}, "model=3: allowed: a torch.nn.Module"),
        ({"optimizer": 3}, "optimizer=3: allowed: a torch.optim.Optimizer"),
        ({"every": 0}, "every=0: allowed"),
        ({"max_steps": -1}, "max_steps=-1: allowed"),
        ({"forecast": "maybe"}, "forecast=maybe: allowed: off, warn, end"),
        ({"divergence": {"blow": None}}, "unknown rule"),
    ],
)
def test_a_mistake_is_told(change: dict[str, Any], said: str) -> None:
    net, optimizer = small()
    with pytest.raises(redline.UserError, match=said):
        redline.watch(**{"model": net, "optimizer": optimizer, "loggers": [], **change})


def test_a_compiled_model_is_refused() -> None:
    net, optimizer = small()
    with pytest.raises(redline.UserError, match="watch it, then compile it"):
        redline.watch(torch.compile(net), optimizer, loggers=[])


def test_it_is_a_run_for_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the sender takes from the outbox: docs/examples/ have it do so."""
    monkeypatch.setattr("redline.training.trackers.mlflow.start_sender", lambda outbox: None)
    monkeypatch.setattr("redline.watching.watched.drain", lambda tracker: None)
    net, optimizer = small()
    with redline.watch(net, optimizer, name="mine", home=tmp_path) as watched:
        trained(watched, net, optimizer, 3)
    (state,) = tmp_path.rglob("state.json")
    run = json.loads(state.read_text())
    assert (run["experiment"], run["status"], run["tags"]["verdict"]) == ("mine", "FINISHED", "stable")
    assert len(state.with_name("metrics.jsonl").read_text().split()) == 4  # three steps, one reading
