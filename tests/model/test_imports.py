"""Who may import whom, and what the model may not know."""

import ast
import os
import re
import subprocess
import sys

import pytest
import torch
from model_helpers import NORMS, ROOT

from redline.training.build import build_model

SRC = ROOT / "src"
# The packages of redline that each may import besides itself; four modules are everybody's.
ALLOWED = {
    "model": set(),
    "stability": set(),
    "data": set(),
    "monitor": {"model"},
    "training": {"model", "stability", "data", "monitor"},
    "search": {"stability"},
    "report": {"stability", "search", "command_line"},
    "gate": {"command_line"},
    "dashboard": {"search", "command_line"},
}
EVERYBODYS = {"errors", "files", "database", "tracked_runs"}
FILES = [path for package in ALLOWED for path in sorted((SRC / "redline" / package).rglob("*.py"))]


def imported(path):
    """Absolute names of the modules that a file imports, anywhere in it."""
    package = path.relative_to(SRC).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def redline_packages(path):
    parts = [name.split(".") for name in imported(path) if name.split(".")[0] in ("redline", "hydra_plugins")]
    return {name[1] if name[0] == "redline" and len(name) > 1 else name[0] for name in parts}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_one_way(path):
    package = path.relative_to(SRC).parts[1]
    assert redline_packages(path) - {package, *EVERYBODYS} <= ALLOWED[package]


def test_every_package_has_a_place_in_the_order():
    packages = {path.parent.name for path in (SRC / "redline").glob("*/__init__.py")}
    assert packages <= set(ALLOWED)


def test_modules_that_belong_to_no_package_import_none_of_them():
    for path in (SRC / "redline").glob("*.py"):
        assert redline_packages(path) <= {"errors"}, path.name


@pytest.mark.parametrize(
    "modules",
    [
        "redline.search.coordinator",
        "redline.stability",
        "hydra_plugins.max_lr._search",
        "redline.command_line",
        "redline.report",
        "redline.gate.__main__",
    ],
)
def test_what_starts_a_search_does_not_import_torch(modules):
    heavy = ("torch", "lightning", "mlflow")
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def own_names(composed):
    """What the model calls its parts: modules of transforms, and the attributes of its blocks."""
    with torch.device("meta"):
        model = build_model(composed())
    attributes = {part for name, _ in model.named_modules() for part in name.split(".")}
    transforms = {path.stem for path in (SRC / "redline/model/transforms").glob("*.py")}
    return attributes | transforms


@pytest.mark.parametrize("path", sorted((SRC / "redline/model").rglob("*.py")), ids=lambda path: path.name)
def test_no_variants_name_appears_in_the_model(path, own_names):
    text = path.read_text(encoding="utf-8")
    for norm in NORMS:
        # As a value, to be compared with, no variant's name is anybody's; as a word, a part may share it.
        assert f'"{norm}"' not in text
        if norm not in own_names:
            assert not re.search(rf"\b{norm}\b", text)


def test_the_search_for_names_is_not_blind(own_names):
    assert {"baseline", "qk", "qk_fc", "qk_cap", "soft_temp"} <= set(NORMS) - own_names
