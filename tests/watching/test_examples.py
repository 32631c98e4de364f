"""The files of docs/examples/ that watch a loop run. For the searched one: tests/package/test_wheel.py."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a file in a folder of its own; what it has for MLflow stays in the outbox."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("redline.training.trackers.mlflow.start_sender", lambda outbox: None)
    monkeypatch.setattr("redline.watching.watched.drain", lambda tracker: None)

    def run(name: str) -> tuple[dict[str, Any], dict[int, dict[str, float]]]:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        (state,) = tmp_path.rglob("state.json")
        metrics: dict[int, dict[str, float]] = {}
        for line in state.with_name("metrics.jsonl").read_text().split("\n"):
            if line:
                step, _, values = json.loads(line)
                metrics.setdefault(step, {}).update(values)
        return json.loads(state.read_text()), metrics

    return run


@pytest.mark.parametrize(
    ("name", "steps", "norm"),
    [
        ("bare_loop.py", 200, "norm/linear/layer_00"),
        ("accelerate_loop.py", 16, "norm/linear/layer_00"),
        ("huggingface_trainer.py", 40, "norm/model_layers_mlp_down_proj/layer_01"),
    ],
)
def test_an_example_runs_as_it_is_written(
    runs: Any, request: pytest.FixtureRequest, name: str, steps: int, norm: str
) -> None:
    if name != "bare_loop.py":
        request.getfixturevalue("peers")
    run, metrics = runs(name)
    assert (run["status"], run["tags"]["verdict"]) == ("FINISHED", "stable")
    assert list(metrics) == list(range(steps))
    assert norm in metrics[10]
    assert metrics[steps - 1]["train/loss"] < metrics[0]["train/loss"]
