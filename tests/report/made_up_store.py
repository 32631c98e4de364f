"""Searches that nobody ran, in real stores: Optuna's studies, MLflow's runs, result.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from redline.report.stores import Stores
from redline.search.policy.answer import variant_result, write_result
from redline.search.policy.verdicts import Point
from redline.search.store.owner import Owner
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.stability import Outcome

LADDER = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
INITIAL = 7.0  # nats
# Markup, and what matplotlib would take for a formula, and a wrong one.
ODD_NAME = """qk, data.path=<b>a/$x_$ & 'y'"</b>"""
STEPS = list(range(0, 100, 10))
SITES = ("qkv", "proj", "fc1", "fc2")

KINDS = ["one-variant", "all-diverged", "untracked", "running", "full"]  # of searches, see conftest

Curves = Mapping[str, Mapping[int, float]]  # metric -> step -> value


@dataclass(frozen=True)
class Fake:
    """A run. ``late``: rule 5 said so after it had finished. ``state``: finished, running or crash.
    ``sent_late``: MLflow had it only after its end.
    """

    rung: int
    seed: int = 0
    val_loss: float | None = 4.0
    reason: str | None = None
    late: bool = False
    sent_late: bool = False
    state: str = "finished"
    curves: Curves = field(default_factory=dict)


def norms(
    steps: Sequence[int], layers: int, size: float = 1.0, odd: Mapping[int, float] | None = None
) -> dict[str, dict[int, float]]:
    """Growing output norms; ``odd`` replaces those of fc2 in layer 1 at its steps."""
    curves = {
        f"norm/{site}/layer_{layer:02d}": {step: size * (1 + step / 10) * (layer + 1) for step in steps}
        for site in SITES
        for layer in range(layers)
    }
    curves["norm/fc2/layer_01"].update(odd or {})
    return curves


def make_stores(folder: Path) -> Stores:
    (folder / "searches").mkdir(parents=True)
    return stores_in(folder)


def stores_in(folder: Path) -> Stores:
    return Stores(
        f"sqlite:///{folder / 'optuna.db'}", f"sqlite:///{folder / 'mlflow.db'}", folder / "searches"
    )


def add_search(
    stores: Stores,
    name: str,
    variants: Mapping[str, Sequence[Fake]],
    *,
    seeds: int = 1,
    ended: bool = True,
) -> None:
    storage = open_storage(stores.storage, patience=60.0)
    client = MlflowClient(stores.tracking_uri) if stores.tracking_uri else None
    experiment = None
    if client is not None:
        experiment = client.create_experiment(name, (stores.searches.parent / "artifacts" / name).as_uri())
    entries = {}
    for variant, fakes in variants.items():
        facts = {
            "search": name,
            "variant": variant,
            "fingerprint": "made up",
            "ladder": LADDER,
            "seeds": seeds,
            "precision": "fp32",
            "max_steps": 100,
        }
        study = VariantStudy(storage, f"{name}/{variant}", LADDER, facts)
        for fake in fakes:
            run_id = None if client is None else _track(client, experiment, name, variant, fake)
            _add_trial(study, fake, run_id)
        numbers = {study.point_of(trial): trial.number for trial in study.trials()}
        late = {Point(its.rung, its.seed): its.reason for its in fakes if its.late and its.reason}
        study.set_late_verdicts({numbers[point]: reason for point, reason in late.items()})
        if ended:
            verdicts = {Point(its.rung, its.seed): its.reason for its in fakes if its.state == "finished"}
            entries[variant] = variant_result(
                study.state().outcomes, verdicts, LADDER, seeds=seeds, vote="majority", max_steps=100
            )
            study.study.set_user_attr("finished", True)
    if ended:
        (stores.searches / name).mkdir()
        result = {"search": name, "ladder": LADDER, "seeds": seeds, "variants": entries}
        write_result(stores.searches / name / "result.json", result)


def add_full_search(stores: Stores) -> None:
    """The search "full": two variants, two seeds, every kind of run."""
    stable = norms(STEPS, layers=3) | {"attention/max_logit": {0: 10.0, 50: 800.0, 90: 700.0}}
    burst = norms(STEPS[:4], 3, odd={20: math.inf, 30: math.nan}) | {
        "attention/max_logit": {0: 9.0, 10: math.inf}
    }
    logits = {"attention/max_logit": {0: 9.0, 10: 2.0e4}}
    full = {
        "baseline": [
            Fake(0, val_loss=4.5, curves=stable),
            Fake(1, val_loss=4.25, curves=stable),
            Fake(1, 1, val_loss=4.375, curves=stable, sent_late=True),
            Fake(2, val_loss=None, reason="non_finite", curves=burst),
            Fake(2, 1, val_loss=9.5, reason="no_learning", curves=logits),
            Fake(5, val_loss=None, reason="blow_up", curves=logits),
        ],
        ODD_NAME: [
            Fake(0, val_loss=4.125, curves=stable),
            Fake(2, val_loss=4.0, curves=stable),
            Fake(3, val_loss=4.5, reason="degraded", late=True, curves=norms(STEPS, 3, size=2.5)),
            Fake(3, 1, val_loss=4.75, reason="degraded", late=True),
            Fake(4, state="crash"),
        ],
    }
    add_search(stores, "full", full, seeds=2)


def _add_trial(study: VariantStudy, fake: Fake, run_id: str | None) -> None:
    claim = study.claim(Point(fake.rung, fake.seed), Owner.here())
    assert claim is not None
    if fake.state == "crash":
        study.fail(claim.number, "crash")
    elif fake.state == "running":
        study.note(claim, "run_id", run_id)
        study.report(claim, 40, 5.25)
    else:
        ended_early = fake.reason is not None and fake.val_loss is None
        outcome = Outcome(
            lr=LADDER[fake.rung],
            seed=fake.seed,
            diverged=fake.reason is not None and not fake.late,
            reason=None if fake.late else fake.reason,
            step=30 if ended_early else 99,
            optimizer_steps=31 if ended_early else 100,
            val_loss=fake.val_loss,
            val_perplexity=None if fake.val_loss is None else math.exp(fake.val_loss),
            initial_loss=INITIAL,
            train_loss=4.0,
            run_id=None if fake.sent_late else run_id,
            run_key=_key(fake),
            seconds=2.5,
        )
        study.finish(claim, outcome, outcome.reason)


def _key(fake: Fake) -> str:
    return f"{fake.rung}-{fake.seed}-{id(fake)}"


def _track(client: MlflowClient, experiment: Any, search: str, variant: str, fake: Fake) -> str:
    tags = {"search": search, "variant": variant, "seed": str(fake.seed), "lr": f"{LADDER[fake.rung]:g}"}
    tags["run_key"] = _key(fake)
    run_id = client.create_run(experiment, run_name=variant, tags=tags).info.run_id
    curves = dict(fake.curves)
    if fake.val_loss is not None:
        curves |= {"val/loss": {99: fake.val_loss}, "val/perplexity": {99: math.exp(fake.val_loss)}}
    points = [Metric(key, value, 0, step) for key, its in curves.items() for step, value in its.items()]
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])
    client.log_batch(run_id, tags=[RunTag("verdict", "diverged" if fake.reason else "stable")])
    client.set_terminated(run_id)
    return run_id
