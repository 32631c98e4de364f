"""Every number of every YAML file: below, above, NaN, text, null and a list are refused in one line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.max_lr.config import split_settings
from redline.command_line import one_line
from redline.config import CONF
from redline.errors import UserError
from redline.training.trainable import task_of

BAD = {
    "below": -(10**30),
    "above": 10**30,
    "nan": float("nan"),
    "text": "many",
    "null": None,
    "list": [1, 2, 3],
}
MAY_BE_NULL = {
    "trainer.threads",
    "plan.tflops.fp8",
    "loss.attention_entropy.queries",
    "loss.attention_entropy.sequences",
    "divergence.forecaster.max_logit",
    "divergence.forecaster.output_gain",
    "hydra.sweeper.report_timeout",
    "hydra.sweeper.jobs",
    "hydra.sweeper.workers",
}
HEADER = "# @package "


def numbers(node: Any, key: str = "") -> Iterator[str]:
    """The keys of a file's numbers; of those in a list, the list's."""
    if isinstance(node, dict):
        for name, its in node.items():
            yield from numbers(its, f"{key}.{name}".strip("."))
    elif isinstance(node, list):
        if any([*numbers(its, "x")] for its in node):
            yield key
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield key


def every_number() -> Iterator[Any]:
    """The choice that has a number, and its key."""
    for path in sorted(CONF.rglob("*.yaml")):
        group = "/".join(path.relative_to(CONF).parts[:-1])
        if group == "sites":  # of a model that is not ours
            continue
        first, _, _ = path.read_text(encoding="utf-8").partition("\n")
        package = first.removeprefix(HEADER) if first.startswith(HEADER) else group.replace("/", ".")
        package = package.replace("_global_", "")
        # Those with an underscore are part of others, among them of what is chosen anyway.
        chosen = group and group != "hydra/sweeper" and not path.stem.startswith("_")
        words = [f"{group}={path.stem}"] if chosen else []
        for key in numbers(OmegaConf.to_container(OmegaConf.load(path))):
            whole = f"{package}.{key}".strip(".")
            yield pytest.param(words, whole, id=f"{path.relative_to(CONF)}:{key}")


NUMBERS = list(every_number())


def test_there_are_many() -> None:
    assert len(NUMBERS) * len(BAD) >= 400


@pytest.mark.parametrize(("words", "key"), NUMBERS)
def test_what_is_no_such_number_is_refused(
    composed: Callable[..., DictConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    key: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = composed("experiment=smoke", "trainer.precision=fp32", "trainer.accelerator=cpu", *words)
    for kind, bad in BAD.items():
        if kind == "null" and (key in MAY_BE_NULL or key.endswith(".every")):
            continue
        if kind == "list" and OmegaConf.is_list(OmegaConf.select(cfg, key)):
            bad = [-1]
        said = refused(cfg, key, bad)
        assert said is not None, f"{key}={bad} was accepted"
        assert "\n" not in said
        assert key.rpartition(".")[2] in said, f"{key}={bad}: {said}"
    assert not [*tmp_path.iterdir()]


def refused(cfg: DictConfig, key: str, bad: Any) -> str | None:
    try:
        if key.startswith("hydra.sweeper."):
            file = OmegaConf.load(CONF / "hydra/sweeper/max_lr.yaml")
            OmegaConf.update(file, key.removeprefix("hydra.sweeper."), bad)
            plain: Any = OmegaConf.to_container(file)
            del plain["defaults"]
            split_settings(plain)[0].check("hydra.sweeper.")
        else:
            before = OmegaConf.select(cfg, key)
            OmegaConf.update(cfg, key, bad)
            try:
                task_of(cfg).check_value()
            finally:
                OmegaConf.update(cfg, key, before)  # a copy of it all would take longer than the check
    except (UserError, OmegaConfBaseException) as error:
        return one_line(error)
    return None
