"""Who may import whom, and what the model may not know."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import fields
from graphlib import TopologicalSorter

import pytest
import torch
from model_helpers import NORMS, ROOT

from redline.config import Config
from redline.training.build import build_model

SRC = ROOT / "src"
# The packages and modules of redline that each package may name besides itself; some are everybody's.
ALLOWED = {
    "model": set(),
    "stability": set(),
    "data": set(),
    "monitor": {"model"},
    "huggingface": {"model"},
    "search": {"stability"},
    "training": {"model", "stability", "data", "monitor", "search", "command_line", "config"},
    "report": {"stability", "search", "command_line", "config"},
    "gate": {"search", "command_line"},
    "dashboard": {"search", "command_line", "config"},
    "watching": {"model", "stability", "monitor", "training", "api", "config"},
    "commands": {
        "training",
        "data",
        "report",
        "gate",
        "dashboard",
        "command_line",
        "config",
    },  # at the top
}
EVERYBODYS = {
    "errors",
    "bounds",
    "parts",
    "secrets",
    "stores",
    "hosts",
    "files",
    "database",
    "metrics",
    "over_ranks",
    "tracked_runs",
}
MODULES = {  # of no package
    "__init__": {"api", "report", "search", "watching"},  # names them when asked
    "__main__": {"commands"},
    "api": {"config", "report", "search", "stability"},
}
# The search in itself: what is pure knows nobody who acts.
LAYERS = {
    "policy": {"result", "trainable"},
    "console": {"result"},
    "workers": {"trainable"},
    "store": {"policy", "result", "trainable", "variant"},
}
# What only our own training has: groups of its configuration, and what reads them.
OURS = {field.name for field in fields(Config)} - {"lr", "seed", "search", "loss", "task"}
PARTS = {path.stem for path in (SRC / "redline").iterdir()}
FILES = [path for package in ALLOWED for path in sorted((SRC / "redline" / package).rglob("*.py"))]


def imported(path):
    """Absolute names of the modules that a file imports, anywhere in it."""
    return names_in(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(SRC).parts[:-1])


def names_in(tree, package=()):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def strings(tree):
    """The texts in a file that are no docstrings, those inside f-strings too."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def modules_named(tree):
    """Modules of ours that a text names, which is how one imports without an import."""
    named = r"\b(redline|hydra_plugins)\.(\w+)[\w.]*"
    return {
        found[0]
        for text in strings(tree)
        for found in re.finditer(named, text)
        if found[1] == "hydra_plugins" or found[2] in PARTS  # redline.Score is for everybody
    }


def redline_packages(path):
    """The packages and modules of ours that a file imports or names."""
    names = imported(path) | modules_named(ast.parse(path.read_text(encoding="utf-8")))
    parts = [name.split(".") for name in names if name.split(".")[0] in ("redline", "hydra_plugins")]
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
        assert redline_packages(path) - EVERYBODYS <= MODULES.get(path.stem, set()), path.name


def test_the_searchs_parts_import_one_way():
    for part, allowed in LAYERS.items():
        for path in (SRC / "redline/search" / part).glob("*.py"):
            parts = [name.split(".") for name in imported(path)]
            used = {its[2] for its in parts if its[:2] == ["redline", "search"] and len(its) > 2}
            assert used - {part} <= allowed, path.name


def test_nothing_imports_in_circles():
    modules = {".".join(path.relative_to(SRC).with_suffix("").parts): path for path in SRC.rglob("*.py")}
    graph = {}
    for module, path in modules.items():
        found = {name if name in modules else name.rpartition(".")[0] for name in imported(path)}
        # A package's `__init__` gathers what its modules have; they do not ask it.
        graph[module] = {name for name in found if name in modules} - {module}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def what_is_ours(source):
    """What a file of the search may not hold: modules of other packages, and keys of our configuration."""
    tree = ast.parse(source)
    allowed = {"search", "stability", *EVERYBODYS}
    yield from (name for name in modules_named(tree) if name.split(".")[1] not in allowed)
    roots = {name.split(".")[0] for name in names_in(tree)}
    yield from roots & {"omegaconf", "hydra", "hydra_plugins", "torch", "lightning", "mlflow"}
    groups = "|".join(sorted(OURS))
    for text in strings(tree):
        if text in OURS | {"cfg"} or re.search(rf"(?<![\w.])(?:{groups})\.\w|omegaconf|_target_", text, re.I):
            yield text
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
        if name in OURS | {"cfg", "OmegaConf", "DictConfig", "import_module", "__import__"}:
            yield name


@pytest.mark.parametrize("path", sorted((SRC / "redline/search").rglob("*.py")), ids=lambda path: path.name)
def test_the_search_knows_nothing_of_our_training(path):
    # The package's own names are imported when they are asked for.
    its_own = {"import_module"} if path == SRC / "redline/search/__init__.py" else set()
    assert set(what_is_ours(path.read_text(encoding="utf-8"))) <= its_own


@pytest.mark.parametrize(
    "bug",
    [
        'TASK = "redline.training.run:run"',
        'preload = ["redline.report.at_end"]',
        'def f(x):\n    return f"redline.{x}" + "redline.model.attention"',
        "steps = variant.cfg.trainer.max_steps",
        'steps = settings["trainer"]["max_steps"]',
        'raise UserError(f"trainer.max_steps={steps}: allowed: 1 or more")',
        'name = f"norm={x}" if getattr(cfg, "norm_strategy") else ""',
        "from omegaconf import OmegaConf",
        "from importlib import import_module\nthe = import_module(name)",
        'if "tracker" in payload: pass',
        'message = "set divergence.no_return=null"',
        'spec = {"_target_": rule}',
    ],
)
def test_the_search_for_what_is_ours_is_not_blind(bug):
    assert list(what_is_ours(bug))


@pytest.mark.parametrize(
    "fine",
    [
        '"""Its defaults are in ``conf/hydra/sweeper/max_lr.yaml``, as trainer.max_steps is."""',
        'say("trials: redline dashboard (Optuna)")',
        'say("of the model. data are")',
        'preload = ["redline.search.workers.silent_end"]',
        "from multiprocessing import resource_tracker",
    ],
)
def test_nor_does_it_cry_wolf(fine):
    assert list(what_is_ours(fine)) == []


def test_what_starts_a_search_does_not_import_torch():
    """Nor does what reads one: seconds, and threads in a server that is forked."""
    modules = [
        "redline",
        "redline.search",
        "redline.api",
        "redline.commands",
        "redline.command_line",
        "redline.gate",
        "redline.gate.__main__",
        "redline.report",
        "hydra_plugins.max_lr._search",
    ]
    code = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    print(module, [name for name in ("torch", "lightning", "mlflow") if name in sys.modules])
import redline
print("names", [name for name in redline.__all__ if getattr(redline, name) is None], "torch" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [*(f"{module} []" for module in modules), "names [] False"]


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
