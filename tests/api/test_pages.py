"""The examples of README.md and docs/extending.md run as they are written."""

import re
from pathlib import Path

from api_helpers import ROOT, python

import redline

EXTENDING = ROOT / "docs" / "extending.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What the README leaves to its reader: the loss 4 w², which falls up to LR 0.25 and grows above it.
GIVEN = """
class Model:
    weight = 1.0

def build(seed):
    model = Model()
    model.weight += seed
    return model

def one_step(model, lr):
    model.weight -= lr * 8 * model.weight
    return evaluate(model)

def evaluate(model):
    return 4 * model.weight * model.weight
"""


def examples(page: Path) -> list[str]:
    """Those that search."""
    return [block for block in _BLOCK.findall(page.read_text(encoding="utf-8")) if "find_edge" in block]


def found(cwd: Path, name: str) -> redline.SearchResult:
    return redline.SearchResult.read(cwd / f"mlruns/searches/{name}/result.json")


def test_the_readmes_example_runs(tmp_path: Path) -> None:
    [example] = examples(ROOT / "README.md")
    assert "__main__" not in example
    (tmp_path / "mine.py").write_text(f"{GIVEN}\n{example}")
    done = python("mine.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    result = found(tmp_path, "mine")
    assert result.ladder == redline.geometric(1e-3, 1.0, 12)
    assert result.seeds == 3
    assert result.variants["mine"].max_useful_rung == 0.151991
    assert result.variants["mine"].first_diverged_lr == 0.284804
    assert "report: not done" not in done.stdout
    assert (tmp_path / "mlruns/searches/mine/report/report.html").exists()


def test_the_pages_examples_run(tmp_path: Path) -> None:
    """One after the other in one script; the rule is in a module of its own, and judges another function."""
    blocks = _BLOCK.findall(EXTENDING.read_text(encoding="utf-8"))
    [rule] = [block for block in blocks if "class AboveTen" in block]
    (tmp_path / "my_rules.py").write_text(rule)
    function, trainable, strict = examples(EXTENDING)
    train = "values = [1, 3]\n\n\ndef train(trial):\n    trial.report(0, 5 * trial.value)\n    return 4.0\n"
    script = "\n\n".join([function, trainable, train, strict])
    (tmp_path / "script.py").write_text(script.replace('name="', 'report_timeout=None, name="'))
    done = python("script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("mine", "quadratic"):
        assert found(tmp_path, name).variants[name].max_useful_rung == 0.151991
    assert f"\n{found(tmp_path, 'mine').variants['mine'].max_useful_lr}\n" in done.stdout
    assert found(tmp_path, "strict").variants["strict"].first_diverged_reason == "above_ten"
