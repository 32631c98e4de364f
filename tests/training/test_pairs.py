"""Every two choices of the training stack together: they train, or are refused in one line before that."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from allpairspy import AllPairs
from omegaconf import OmegaConf
from training_helpers import ROOT, train

from redline.errors import UserError
from redline.training.check import check_parts

STEPS = 3
GROUPS = {  # group -> the key at which it lands
    "norm": "norm_strategy",
    "optimizer": "optimizer",
    "schedule": "schedule",
    "init": "init",
    "norm_layer": "norm_layer",
    "loss": "loss",
    "gradient": "gradient",
}
SETTINGS = {  # keys that are no group
    "model.positions": ["rope", "learned"],
    "model.dropout": [0.0, 0.1],
    "model.attention": ["auto", "explicit"],
    "trainer.accumulate": [1, 2],
    "trainer.precision": ["fp32", "bf16-mixed", "fp16-mixed", "bf16-true"],
}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("[!_]*.yaml"))


CHOICES = {group: choices(group) for group in GROUPS}
# A few configurations that have every choice of every group: composing takes longer than training.
ROUNDS = [
    [f"{group}={its[number % len(its)]}" for group, its in CHOICES.items()]
    for number in range(max(map(len, CHOICES.values())))
]
OPTIONS = [[(group, choice) for choice in its] for group, its in CHOICES.items()]
OPTIONS += [[(key, value) for value in values] for key, values in SETTINGS.items()]
# Of two choices each pair is in one of these; they are the same each time.
COMBINATIONS = [dict(pairs) for pairs in AllPairs(OPTIONS)]


def test_there_are_many():
    assert len(COMBINATIONS) >= 200
    pairs = {(one, other) for its in COMBINATIONS for one in its.items() for other in its.items()}
    wanted = {(a, b) for one in OPTIONS for other in OPTIONS if one is not other for a in one for b in other}
    assert wanted <= pairs


@pytest.fixture(scope="module")
def combined(run_cfg):
    """The configuration of a combination."""

    @functools.cache
    def composed(number):
        return run_cfg(*ROUNDS[number], f"trainer.max_steps={STEPS}")

    def combine(chosen):
        cfg = copy.deepcopy(composed(CHOICES["norm"].index(chosen["norm"])))
        for group, key in GROUPS.items():
            cfg[key] = OmegaConf.select(composed(CHOICES[group].index(chosen[group])), key)
        for key in SETTINGS:
            OmegaConf.update(cfg, key, chosen[key])
        cfg.model.num_layers, cfg.schedule.warmup_steps = 1, 1
        cfg.trainer.allow_emulated = True
        cfg.trainer.keep_checkpoint = False
        return cfg

    return combine


def refused(cfg):
    try:
        check_parts(cfg)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("chosen", COMBINATIONS, ids=lambda its: "-".join(map(str, its.values())))
def test_a_combination_trains_or_is_refused(combined, tmp_path, chosen):
    cfg = combined(chosen)
    if (refusal := refused(cfg)) is not None:
        assert "\n" not in refusal
        assert len({key for key in (*GROUPS.values(), *SETTINGS) if key in refusal}) >= 2, refusal
        return
    outcome, losses = train(cfg, tmp_path)
    assert list(losses) == list(range(STEPS))
    assert all(map(torch.isfinite, map(torch.tensor, losses.values())))
    assert outcome.optimizer_steps == STEPS
    assert not list(Path(tmp_path).rglob("*.ckpt"))
