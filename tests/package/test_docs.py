"""README, docs/ and notebooks/: what they name exists, and their commands compose."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

import redline
from hydra_plugins.max_lr.config import CommandLine
from redline.config import CONF, Config, check_settings, register
from redline.search import Options, SearchResult, VariantResult

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
GROUPS = {field.name for field in fields(Config)}

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(
    r"(?:\.venv/bin/)?(?:redline (?P<word>train|search|plan|send)\b|python src/train\.py\b)"
)
# Made by the reader: a variant, a tap, a tracker and a model of one's own.
_READERS_OWN = {
    "norm=qk,mine",
    "monitor/taps=[output_norm,max_logit,logit_rms]",
    "tracker=[mlflow,folder]",
    "task=digits",
    "task.module.batch_norm=false,true",
    "optimizer.lr",  # within a part of task.module
}


def text_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def blocks(path: Path, language: str) -> list[str]:
    return [block for found, block in _BLOCK.findall(text_of(path)) if found == language]


def code_spans(path: Path) -> list[str]:
    return _CODE.findall(_BLOCK.sub("", text_of(path)))


def commands(path: Path) -> list[list[str]]:
    """The overrides of each command that Hydra reads, on its own line or within a sentence."""
    lines = "\n".join(blocks(path, "")).replace("\\\n", " ").splitlines()
    found = []
    for line in [*lines, *code_spans(path)]:
        if (match := _COMMAND.match(line)) is not None:
            words = shlex.split(line[match.end() :].rstrip("…"), comments=True)
            found.append([word for word in words if "=" in word])
    return found


def settings(path: Path) -> set[str]:
    """What a sentence or a table names outside of a command: `monitor.every=10`, or `monitor.every`."""
    words = [
        word.strip("'") for span in code_spans(path) if not _COMMAND.match(span) for word in span.split()
    ]
    named = re.compile(rf"(?:{'|'.join(GROUPS)})(?:[./]\w+)*(?:=[^\s…]*)?")
    return {word for word in words if named.fullmatch(word) and not word.endswith((".py", ".yaml"))}


@cache
def keys() -> frozenset[str]:
    """Every key of the default configuration, as in `monitor.taps.memory`, and of models of others."""

    def walk(values: Any, before: str) -> Iterator[str]:
        for key, value in values.items():
            yield before + key
            if isinstance(value, dict):
                yield from walk(value, f"{before}{key}.")

    words = [], ["task=lightning"], ["model=huggingface"]
    return frozenset(key for its in words for key in walk(OmegaConf.to_container(composed(its)), ""))


def composed(words: list[str]) -> DictConfig:
    """As one run of a search has it: of several values the first one."""
    # A launcher's keys are its own, and Ray's is not installed.
    ours = [word for word in words if not word.lstrip("+").startswith(("hydra.launcher", "hydra/launcher"))]
    ours = [word for word in ours if word not in _READERS_OWN]
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        parsed = [first_value(override) for override in OverridesParser.create().parse_overrides(ours)]
        return compose("train", parsed, return_hydra_config=True)


def first_value(override: Override) -> str:
    assert override.input_line is not None
    if not override.is_sweep_override():
        return override.input_line
    value = override.value()
    first = getattr(value, "start", None)
    if first is None:
        first = next(override.sweep_string_iterator())
    return f"{override.get_key_element()}={first}"


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_a_page_begins_with_a_command(path):
    title, _, first, *_ = path.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ")
    assert first == "```"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)]+)\)", text_of(path)):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        page = (path.parent / target) if target else path
        assert page.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert anchor in anchors, link


def test_every_page_is_linked_from_the_readme():
    for path in DOCS:
        assert f"(docs/{path.name})" in text_of(README)


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_files_that_are_named_exist(path):
    places = ("src", "conf", "docs", "bench", "tests", "notebooks")
    named = [line.split("  ")[0] for line in text_of(path).splitlines()] + code_spans(path)
    for name in named:
        if name.startswith(tuple(f"{place}/" for place in places)) and not set(name) & set("*{ "):
            made_by_the_reader = Path(name).stem in ("NAME", "mine", "logit_rms")
            assert made_by_the_reader or (ROOT / name).exists(), name


def test_the_map_and_the_path_to_a_verdict_name_files_that_exist():
    map_of_files = next(block for block in blocks(README, "") if "conf/train.yaml" in block)
    in_map = [line.split()[0] for line in map_of_files.splitlines()]
    assert len(in_map) > 15
    steps = re.findall(r"^\| `(src/[\w/.]+\.py)` \|", text_of(README), re.MULTILINE)
    assert 0 < len(steps) <= 10
    for name in [*in_map, *steps]:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_commands_compose(path):
    for words in commands(path):
        cfg = composed(words)
        check_settings(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_settings_that_are_named_exist(path):
    for setting in settings(path) - _READERS_OWN:
        key, _, value = setting.partition("=")
        if not (CONF / key).is_dir():
            assert key in keys(), setting
        elif re.fullmatch(r"\w+|\[[\w,]+\]", value):
            for choice in value.strip("[]").split(","):
                assert (CONF / key / f"{choice}.yaml").exists(), setting


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_options_of_the_search_that_are_named_exist(path):
    known = {option.name for option in (*fields(Options), *fields(CommandLine))} | {"NAME"}
    assert set(re.findall(r"hydra\.sweeper\.(\w+)", text_of(path))) <= known


def test_the_page_on_the_search_names_every_option_and_every_field_of_the_result():
    named = set(code_spans(ROOT / "docs" / "search.md"))
    for kind in (Options, CommandLine, SearchResult, VariantResult):
        assert {field.name for field in fields(kind)} - {"_target_"} <= named


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_python_examples_are_python_and_name_what_there_is(path):
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "redline" or hasattr(redline, node.attr)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("redline"):
                source = ROOT.joinpath("src", *str(node.module).split("."), "__init__.py").read_text()
                assert all(f'"{alias.name}"' in source for alias in node.names)
