"""The group `monitor`: what is refused, what is off, and a tap of a user's own."""

import pytest
import yaml
from monitor_helpers import composed
from omegaconf import OmegaConf

from redline.errors import UserError
from redline.monitor import build_monitor


def changed(key, value):
    """`monitor=full` with one key set, as Hydra sets it."""
    monitor = composed("monitor=full").monitor
    OmegaConf.update(monitor, key, yaml.safe_load(value), force_add=True)
    return monitor


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "taps.output_norm.sites",
            "[qkv, fc3]",
            "taps.output_norm.sites=\\[qkv, fc3\\]: allowed: a list of 1 or more, each qkv, proj",
        ),
        (
            "taps.residual.sites",
            "[]",
            r"taps.residual.sites=\[\]: allowed: a list of 1 or more, each",
        ),
        (
            "taps.output_norm.statistics",
            "[max]",
            r"taps.output_norm.statistics=\[max\]: .*, each norm, rms",
        ),
        (
            "taps.weight_norm.sites",
            "[q]",
            r"taps.weight_norm.sites=\[q\]: .*, each qkv, proj, fc1, fc2",
        ),
        ("taps.max_logit.queries", "0", "taps.max_logit.queries=0: allowed: a whole number from 1"),
        ("taps.max_logit.sequences", "129", "taps.max_logit: sequences=129: allowed: from 1 to queries=128"),
        ("taps.weight_histogram.low", "24", "taps.weight_histogram: low=24: allowed: below high=24"),
        ("taps.residual.every", "0", "taps.residual.every=0: allowed: a whole number from 1"),
        ("every", "0", "every=0: allowed: a whole number from 1"),
        ("evry", "3", "evry: unknown key; allowed here: every, taps"),
        (
            "taps.residual.stes",
            "[q]",
            r"taps.residual.stes: unknown argument \(did you mean sites\?\); allowed: ",
        ),
        (
            "taps.residual._target_",
            "torch.nn.Identity",
            "taps.residual._target_=torch.nn.Identity: allowed: a sub",
        ),
        ("taps.residual._target_", "no.such.Tap", "taps.residual._target_=no.such.Tap: .*No module"),
        ("taps.mine", "3", "taps=.*: allowed: names and their values"),
    ],
)
def test_a_mistake_names_its_key(key, value, said):
    with pytest.raises(UserError, match=rf"^monitor\.{said}") as error:
        build_monitor(changed(key, value))
    assert "\n" not in str(error.value)


def test_a_tap_set_to_null_is_off():
    taps = build_monitor(changed("taps.residual", "null")).taps
    assert "residual" not in taps
    assert "output_norm" in taps


def test_off_attaches_nothing():
    assert build_monitor(composed("monitor=off").monitor).taps == {}


def test_a_tap_reads_as_often_as_the_monitor_or_as_it_says_itself():
    monitor = composed("monitor=full").monitor
    monitor.every, monitor.taps.residual.every = 7, 3
    OmegaConf.set_struct(monitor, False)
    del monitor.taps.memory["every"]
    built = build_monitor(monitor)
    assert (built.every, built.taps["output_norm"].every, built.taps["residual"].every) == (7, 7, 3)
    assert built.taps["memory"].every is None
