"""Every file under conf/ says what choosing it does, composes, and can be made into what it names."""

import pytest
import torch
from hydra.utils import instantiate
from torch import nn
from training_helpers import ROOT

from redline.stability import build_rules
from redline.training.build import build_module, build_monitor
from redline.training.check import check

CONF = ROOT / "conf"
GROUPS = ("norm", "model", "data", "optimizer", "schedule", "trainer", "monitor", "divergence", "tracker")
CHOICES = [
    pytest.param(group, path.stem, id=f"{group}-{path.stem}")
    for group in (*GROUPS, "experiment")
    for path in sorted((CONF / group).glob("*.yaml"))
    if not path.stem.startswith("_")
]


def test_every_group_is_looked_at():
    folders = {path.parent.relative_to(CONF).parts[0] for path in CONF.rglob("*.yaml") if path.parent != CONF}
    assert folders == {*GROUPS, "experiment", "hydra"}


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_begins_with_what_choosing_it_does(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.parent.name in ("norm", "experiment"):
        package = {"norm": "norm_strategy", "experiment": "_global_"}[path.parent.name]
        assert lines.pop(0) == f"# @package {package}"
    assert lines[0].startswith("# ")
    assert not lines[0].startswith("# @")
    assert lines[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_is_a_run_that_could_start(composed, tmp_path, group, choice):
    overrides = {"model-paper_830m": ["data.token_type=uint32"]}.get(f"{group}-{choice}", [])
    cfg = composed(f"{group}={choice}", *overrides)
    cfg.trainer.accelerator, cfg.trainer.precision = "cpu", "fp32"
    check(cfg)
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    optimizer = instantiate(cfg.optimizer)(parameters, cfg.lr)
    assert [group["lr"] for group in optimizer.param_groups] == [cfg.lr, cfg.lr]
    with torch.device("meta"):
        assert 0 < build_module(cfg).schedule(5) <= 1
    assert len(build_rules(cfg.divergence, object)) == sum(
        spec is not None for spec in cfg.divergence.values()
    )
    assert build_monitor(cfg).every == cfg.monitor.every
    instantiate(cfg.data.source, _convert_="all")
    if group == "tracker":
        if "tracking_uri" in cfg.tracker:
            cfg.tracker.tracking_uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
            cfg.tracker.artifact_location = str(tmp_path / "artifacts")
        instantiate(cfg.tracker, experiment_name="runs", run_name="any", tags={}, run_id=None)
