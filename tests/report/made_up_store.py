"""Searches that nobody ran, in real stores: Optuna's studies, MLflow's runs, result.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from optuna.trial import FrozenTrial

from redline.metrics import MAX_LOGIT, NORM, VAL_LOSS, VAL_PERPLEXITY, of_layer
from redline.report import Search, load_search
from redline.search.policy.answer import variant_result
from redline.search.policy.state import Question, search_state
from redline.search.policy.verdicts import Point
from redline.search.result import SearchResult
from redline.search.store.owner import Owner
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.search.trainable import Facts
from redline.stability import Outcome, SearchRule, build_rules

LADDER = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
INITIAL = 7.0  # nats
# Markup, and what matplotlib would take for a formula, and a wrong one.
ODD_NAME = """qk, data.path=<b>a/$x_$ & 'y'"</b>"""
STEPS = list(range(0, 100, 10))
SITES = ("qkv", "proj", "fc1", "fc2")

KINDS = ["one-variant", "all-diverged", "untracked", "running", "other", "full"]  # of searches, see conftest
RULES = {"degraded": {"_target_": "redline.stability.Degraded", "tolerance": 0.25}}
FACTS = Facts(max_steps=100, precision="fp32")

Curves = Mapping[str, Mapping[int, float]]  # metric -> step -> value


@dataclass(frozen=True)
class Fake:
    """A run. ``late``: a smaller LR says so, after it had finished; ``told``: MLflow was told of that.

    ``state``: finished, running or crash.
    """

    rung: int
    seed: int = 0
    val_loss: float | None = 4.0
    reason: str | None = None
    late: bool = False
    told: bool = True
    state: str = "finished"
    curves: Curves = field(default_factory=dict)


def norms(
    steps: Sequence[int], layers: int, size: float = 1.0, odd: Mapping[int, float] | None = None
) -> dict[str, dict[int, float]]:
    """Growing output norms; ``odd`` replaces those of fc2 in layer 1 at its steps."""
    curves = {
        of_layer(NORM, site, layer): {step: size * (1 + step / 10) * (layer + 1) for step in steps}
        for site in SITES
        for layer in range(layers)
    }
    curves[of_layer(NORM, "fc2", 1)].update(odd or {})
    return curves


@dataclass(frozen=True)
class Stores:
    """Where searches are; ``tracking_uri`` None: nothing was tracked."""

    storage: str
    tracking_uri: str | None
    searches: Path


def read_search(stores: Stores, name: str | None = None) -> Search:
    return load_search(name, storage=stores.storage, tracking_uri=stores.tracking_uri or "none")


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
    key: str = "lr",
    label: str = "LR",
    facts: Facts = FACTS,
    perplexity: bool = True,
) -> None:
    """``perplexity``: it is of a language model."""
    storage = open_storage(stores.storage, timeout=60.0)
    client = MlflowClient(stores.tracking_uri) if stores.tracking_uri else None
    experiment = None
    if client is not None:
        experiment = client.create_experiment(name, (stores.searches.parent / "artifacts" / name).as_uri())
    results = {}
    for variant, fakes in variants.items():
        attributes = {
            "search": name,
            "variant": variant,
            "fingerprint": "made up",
            "ladder": LADDER,
            "seeds": seeds,
            "key": key,
            "label": label,
            "is_short": False,
            "rules": RULES,
            "facts": asdict(facts),
        }
        study = VariantStudy(storage, f"{name}/{variant}", attributes)
        for fake in fakes:
            claim = _add_trial(study, fake, perplexity)
            if client is not None:
                _track(client, experiment, {"search": name, "variant": variant}, claim, fake)
        if ended:
            question, rules = Question(tuple(LADDER), seeds, "majority", 1.0), build_rules(RULES, SearchRule)
            results[variant] = variant_result(search_state(question, rules, study.state().outcomes), facts)
            study.answer(results[variant])
            study.study.set_user_attr("finished", True)
    if ended:
        (stores.searches / name).mkdir()
        result = SearchResult(name, tuple(LADDER), seeds, results, key, label)
        result.write(stores.searches / name / "result.json")


def add_full_search(stores: Stores) -> None:
    """The search "full": two variants, two seeds, every kind of run."""
    stable = norms(STEPS, layers=3) | {MAX_LOGIT: {0: 10.0, 50: 800.0, 90: 700.0}}
    burst = norms(STEPS[:4], 3, odd={20: math.inf, 30: math.nan}) | {MAX_LOGIT: {0: 9.0, 10: math.inf}}
    logits = {MAX_LOGIT: {0: 9.0, 10: 2.0e4}}
    full = {
        "baseline": [
            Fake(0, val_loss=4.5, curves=stable),
            Fake(1, val_loss=4.25, curves=stable),
            Fake(1, 1, val_loss=4.375, curves=stable),
            Fake(2, val_loss=None, reason="non_finite", curves=burst),
            Fake(2, 1, val_loss=9.5, reason="no_learning", curves=logits),
            Fake(5, val_loss=None, reason="blow_up", curves=logits),
        ],
        ODD_NAME: [
            Fake(0, val_loss=4.125, curves=stable),
            Fake(2, val_loss=4.0, curves=stable),
            Fake(2, 1, val_loss=4.0, curves=stable),
            Fake(3, val_loss=4.5, reason="degraded", late=True, curves=norms(STEPS, 3, size=2.5)),
            Fake(3, 1, val_loss=4.75, reason="degraded", late=True),
            Fake(4, state="crash"),
        ],
    }
    add_search(stores, "full", full, seeds=2)


def _add_trial(study: VariantStudy, fake: Fake, perplexity: bool) -> FrozenTrial:
    claim = study.claim(Point(fake.rung, fake.seed), Owner.here())
    assert claim is not None
    if fake.state == "crash":
        study.fail(claim._trial_id, "crash")
    elif fake.state == "running":
        study.report(claim, 40, 5.25)
    else:
        ended_early = fake.reason is not None and fake.val_loss is None
        known = perplexity and fake.val_loss is not None
        outcome = Outcome(
            value=LADDER[fake.rung],
            seed=fake.seed,
            reason=None if fake.late else fake.reason,
            step=30 if ended_early else 99,
            optimizer_steps=31 if ended_early else 100,
            val_loss=fake.val_loss,
            numbers={"perplexity": math.exp(fake.val_loss)} if known and fake.val_loss is not None else {},
            initial_loss=INITIAL,
            train_loss=4.0,
            seconds=2.5,
        )
        study.finish(claim, outcome, outcome.reason)
    return claim


def _track(
    client: MlflowClient, experiment: Any, tags: Mapping[str, str], claim: FrozenTrial, fake: Fake
) -> None:
    its = {"trial": str(claim.number), "seed": str(fake.seed), "lr": f"{LADDER[fake.rung]:g}"}
    run_id = client.create_run(experiment, run_name=tags["variant"], tags={**tags, **its}).info.run_id
    curves = dict(fake.curves)
    if fake.val_loss is not None:
        curves |= {VAL_LOSS: {99: fake.val_loss}, VAL_PERPLEXITY: {99: math.exp(fake.val_loss)}}
    points = [Metric(key, value, 0, step) for key, its in curves.items() for step, value in its.items()]
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])
    reason = fake.reason if fake.told else None
    verdict = {"verdict": "diverged" if reason else "stable", "reason": reason or ""}
    client.log_batch(run_id, tags=[RunTag(*tag) for tag in verdict.items()])
    client.set_terminated(run_id)
