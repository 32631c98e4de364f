"""Every notebook runs from a clean kernel, with less to train, and is committed without outputs."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from command_helpers import ROOT, Finished

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHEAP = ["trainer.accelerator=cpu", "trainer.precision=fp32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all that train: making MLflow's tables takes longer than training."""
    return tmp_path_factory.mktemp("notebooks")


def run(name: str, folder: Path, **parameters: object) -> str:
    """Everything that a notebook printed or drew, as text; ``parameters`` come after its own."""
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    (place,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    lines = ["from pathlib import Path", f"folder = Path({str(folder)!r})"]
    lines += [f"{key} = {value!r}" for key, value in parameters.items()]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    client = NotebookClient(
        notebook,
        timeout=1200,
        startup_timeout=600,
        resources={"metadata": {"path": ROOT / "notebooks"}},
    )
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    return "\n".join(text for cell in notebook.cells for text in _shown(cell))


def _shown(cell: NotebookNode) -> list[str]:
    outputs = cell.get("outputs", [])
    said = [output.text for output in outputs if output.output_type == "stream"]
    return [*said, *(text for output in outputs for text in _texts(output))]


def _texts(output: NotebookNode) -> list[str]:
    data = output.get("data", {})
    return [data.get("text/plain", ""), *(key for key in data if key.startswith("image/"))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_committed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_one_run(folder: Path, smoke: list[str]) -> None:
    tokens = next(word for word in smoke if word.startswith("data.cache_dir="))
    overrides = ["experiment=smoke", "norm=qk", "lr=0.1", "trainer.max_steps=12", tokens, *CHEAP]
    shown = run("01_one_run.ipynb", folder, overrides=overrides)
    assert "Outcome(value=0.1, seed=0" in shown
    assert "image/png" in shown


def test_the_edge_of_a_search(finished: Finished) -> None:
    pytest.importorskip("redline.report", reason="this version has no report")
    shown = run("02_lr_edge.ipynb", finished.cwd, search_name=finished.answer.name)
    for variant in ("baseline", "qk"):
        assert f"{variant}: useful to " in shown
    assert shown.count("image/png") == 4


def test_a_model_of_ones_own(folder: Path) -> None:
    pytest.importorskip("redline.report", reason="this version has no report")
    search = ["trainer.max_steps=12", "lr=0.1,30", "hydra.sweeper.report_timeout=null"]
    shown = run("04_your_own_model.ipynb", folder, overrides=[*search, "trainer.accelerator=cpu"])
    assert "largest useful and largest stable learning rate" in shown
    assert "image/png" in shown
    assert "Verdict(reason='" in shown


def test_a_variant_of_ones_own(folder: Path, smoke: list[str]) -> None:
    pytest.importorskip("redline.report", reason="this version has no report")
    tokens = next(word for word in smoke if word.startswith("data.cache_dir="))
    search = ["trainer.max_steps=8", "lr=0.01,10", "hydra.sweeper.report_timeout=null"]
    overrides = ["experiment=smoke", *search, tokens, *CHEAP]
    shown = run("03_your_own_variant.ipynb", folder, overrides=overrides)
    assert "largest useful and largest stable learning rate" in shown
    assert "'qk_fc2': " in shown
    assert "image/png" in shown
