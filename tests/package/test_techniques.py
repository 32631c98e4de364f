"""docs/techniques.md is what conf/ says, and every technique names a package and a test that there are."""

import ast

import pytest
from techniques import GROUPS, PAGE, ROOT, page, techniques

EVERY = [pytest.param(its, id=f"{group}-{its.path.stem}") for group in GROUPS for its in techniques(group)]
PACKAGES = {"redline", "torch", "tokenizers", "pytorch-optimizer", "ftfy", "datasketch", "tiktoken"}


def test_the_page_is_what_make_techniques_writes():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make techniques"


@pytest.mark.parametrize("technique", EVERY)
def test_a_technique_names_its_package_and_a_test(technique):
    assert set(technique.package.split(", ")) <= PACKAGES
    test = ROOT / technique.test
    assert test.parent.parent == ROOT / "tests"
    functions = [
        node.name for node in ast.walk(ast.parse(test.read_text())) if isinstance(node, ast.FunctionDef)
    ]
    assert any(name.startswith("test_") for name in functions)


def test_every_group_that_is_a_technique_is_on_the_page():
    others = {
        "model",
        "sites",
        "data",
        "trainer",
        "device",
        "tracker",
        "divergence",
        "monitor",
        "experiment",
        "remedy",
        "hydra",
        "task",
    }
    folders = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert folders - others == {group for group in GROUPS if "/" not in group}
