"""Every file under conf/ says what choosing it does, composes, and can be made into what it names."""

import re
from importlib.util import find_spec

import pytest
import torch
from hydra.utils import instantiate
from torch import nn
from training_helpers import ROOT

from redline.model import Linear, Named
from redline.stability import build_rules
from redline.training.build import build_module, build_monitor
from redline.training.check import check
from redline.training.optimizers import optimizer_from
from redline.training.trackers import TrackedRun, build_trackers

CONF = ROOT / "conf"
GROUPS = (
    "norm",
    "norm_layer",
    "model",
    "init",
    "data",
    "optimizer",
    "schedule",
    "trainer",
    "monitor",
    "divergence",
    "tracker",
    "task",
)
LISTS = ("monitor/taps", "loss", "gradient", "data/steps")  # groups that take several files
CHOICES = [
    pytest.param(group, f"[{path.stem}]" if group in LISTS else path.stem, id=f"{group}-{path.stem}")
    for group in (*GROUPS, "data/tokenizer", *LISTS, "experiment", "remedy")
    for path in sorted((CONF / group).glob("*.yaml"))
    # What a module of the user's own needs is in test_own_module.py.
    if not path.stem.startswith("_") and path.stem not in ("lightning", "any_model")
]


def test_every_group_is_looked_at():
    folders = {path.parent.relative_to(CONF).parts[0] for path in CONF.rglob("*.yaml") if path.parent != CONF}
    assert folders == {
        *GROUPS,
        "sites",  # in tests/huggingface/
        *(group.partition("/")[0] for group in LISTS),
        "experiment",
        "remedy",
        "device",
        "hydra",
    }


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_begins_with_what_choosing_it_does(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    packages = {
        "norm": "norm_strategy",
        "experiment": "_global_",
        "remedy": "_global_",
        "tracker": "tracker",
        "loss": "loss",
        "gradient": "gradient",
        "device": "plan",
    }
    package = "_global_" if path.name == "lightning.yaml" else packages.get(path.parent.name)
    if package is not None:
        assert re.fullmatch(rf"# @package {package}(\.\w+)?", lines.pop(0))
    assert lines[0].startswith("# ")
    assert not lines[0].startswith("# @")
    assert lines[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_is_a_run_that_could_start(composed, tmp_path, monkeypatch, request, group, choice):
    monkeypatch.chdir(tmp_path)
    if choice == "huggingface" and group == "model":
        request.getfixturevalue("peers")
    if choice == "wandb" and find_spec("wandb") is None:
        pytest.skip("wandb, 80 MB with what it needs, is not installed")
    overrides = {
        "model-paper_830m": ["data.token_type=uint32"],
        "model-huggingface": [
            "model.type=llama",
            "model.overrides={hidden_size: 32, num_attention_heads: 4}",
        ],
    }.get(f"{group}-{choice}", [])
    cfg = composed(f"{group}={choice}", *overrides)
    cfg.trainer.accelerator, cfg.trainer.precision = "cpu", "fp32"
    monkeypatch.setattr("os.sysconf", lambda name: 2**20)  # a machine large enough for any model
    check(cfg)
    matrix = Named("blocks.0.attention.qkv.weight", nn.Parameter(torch.ones(2, 2)), "hidden", Linear.qkv, 0)
    gain = Named("final.weight", nn.Parameter(torch.ones(2)), "vector")
    optimizer = optimizer_from(cfg.optimizer)([matrix, gain], cfg.lr)
    assert [group["lr"] for group in optimizer.param_groups] == [cfg.lr, cfg.lr]
    with torch.device("meta"):
        assert 0 < build_module(cfg).schedule(5) <= 1
    assert len(build_rules(cfg.divergence, object)) == sum(
        spec is not None for name, spec in cfg.divergence.items() if not name.startswith("forecast")
    )
    assert build_monitor(cfg).every == cfg.monitor.every
    instantiate(cfg.data.source, _convert_="all")
    if group == "tracker":
        run = TrackedRun(key="key", experiment="runs", name="any", tags={})
        assert len(build_trackers(cfg.tracker, run).loggers) == (choice != "none")
