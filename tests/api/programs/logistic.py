"""Logistic regression in numpy, a plain function. Run in a folder; see gate.py for how it is held up."""

import sys
from pathlib import Path

import numpy as np

import redline

sys.path.insert(0, str(Path(__file__).parent))
import gate

STEPS, EXAMPLES, WIDTH = 200, 256, 8


def train(trial: redline.Trial) -> float:
    assert "torch" not in sys.modules
    random = np.random.default_rng(trial.seed)
    x = random.normal(size=(EXAMPLES, WIDTH)) * np.geomspace(1, 8, WIDTH)  # ill-conditioned: an edge
    y = (x @ random.normal(size=WIDTH) + random.normal(size=EXAMPLES) > 0).astype(float)
    weights = random.normal(size=WIDTH) * 0.01

    def loss() -> float:
        logits = x @ weights
        return float(np.mean(np.logaddexp(0, logits) - y * logits)) + 0.05 * float(weights @ weights)

    for step in range(STEPS):
        if step == STEPS // 10:  # before any diverges
            gate.pass_or_wait(trial.directory)
        error = 1 / (1 + np.exp(-np.clip(x @ weights, -500, 500))) - y
        gradient = x.T @ error / EXAMPLES + 0.1 * weights
        stop = trial.report(step, loss(), float(np.linalg.norm(gradient)))
        weights -= trial.value * gradient
        if stop:
            break
    gate.ended()
    return loss()


result = redline.find_edge(
    train,
    values=redline.geometric(0.01, 100, 9),
    seeds=3,
    name="logistic",
    max_steps=STEPS,
    workers=2,
    report_timeout=None,
)
print(f"edge {result.variants['logistic'].max_useful_rung}")
