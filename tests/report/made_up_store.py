"""Searches that nobody ran, in real stores: Optuna's studies, MLflow's runs, result.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from optuna.trial import FrozenTrial

from redline.metrics import MAX_LOGIT, NORM, VAL_LOSS, VAL_PERPLEXITY, of_layer
from redline.report import Search, load_search
from redline.search.policy.points import Point
from redline.search.result import QUANTILES, Curve, Ratio, SearchResult, VariantResult
from redline.search.store.owner import Owner
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.search.trainable import Facts
from redline.stability import Cut, Outcome

LADDER = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
INITIAL = 7.0  # nats
# Markup, and what matplotlib would take for a formula, and a wrong one.
ODD_NAME = """qk, data.path=<b>a/$x_$ & 'y'"</b>"""
STEPS = list(range(0, 100, 10))
SITES = ("qkv", "proj", "fc1", "fc2")

KINDS = ["one-variant", "all-diverged", "untracked", "running", "other", "full"]  # of searches, see conftest
ASKED = {"recipe": {"weight_decay": 0.1, "clip": 1.0}, "criterion": "both", "claim": 1.5}
FACTS = Facts(max_steps=100, precision="fp32")

Curves = Mapping[str, Mapping[int, float]]  # metric -> step -> value


@dataclass(frozen=True)
class Fake:
    """A run. ``cut``: the loss that was expected of it when the search cut it.

    ``state``: finished, running or crash.
    """

    rung: int
    seed: int = 0
    val_loss: float | None = 4.0
    reason: str | None = None
    cut: float | None = None
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
            "rules": {},
            "facts": asdict(facts),
            **(ASKED if key == "lr" else {}),
        }
        study = VariantStudy(storage, f"{name}/{variant}", attributes)
        for fake in fakes:
            claim = _add_trial(study, fake, perplexity)
            if client is not None:
                _track(client, experiment, {"search": name, "variant": variant}, claim, fake)
        if ended:
            reference = None if not results else next(iter(variants))
            results[variant] = _result(fakes, seeds, facts, reference, perplexity)
            study.answer(results[variant])
            study.study.set_user_attr("finished", True)
    if ended:
        (stores.searches / name).mkdir()
        asked = ASKED if key == "lr" else {}
        result = SearchResult(name, tuple(LADDER), seeds, results, key, label, **asked)
        result.write(stores.searches / name / "result.json")


def _result(
    fakes: Sequence[Fake], seeds: int, facts: Facts, reference: str | None, perplexity: bool
) -> VariantResult:
    """An answer that goes with the runs: both edges lie a fifth above the rungs that show it.

    Useful is what ends within 0.4 of the best smaller one's loss.
    """
    ended = [fake for fake in fakes if fake.state == "finished"]
    bad = [fake.rung for fake in ended if fake.reason]
    losses = {
        rung: fmean(its.val_loss for its in ended if its.rung == rung and its.val_loss is not None)
        for rung in sorted({its.rung for its in ended if not its.reason and its.val_loss is not None})
    }
    stable = [rung for rung in losses if rung < min(bad, default=len(LADDER))]
    useful = [
        rung for rung in stable if losses[rung] < min(losses[its] for its in stable if its <= rung) + 0.4
    ]
    lost = [rung for rung in [*bad, *losses, *(its.rung for its in ended if its.cut)] if rung not in useful]
    edge = LADDER[useful[-1]] * 1.2 if useful and lost else None
    best = min(losses, key=lambda rung: losses[rung], default=None)
    loss = losses[useful[-1]] if edge else None
    points = (0.02, 0.1, 0.5)
    return VariantResult(
        max_useful_lr=edge,
        max_useful_lr_90=None if edge is None else (edge * 0.8, edge * 1.25),
        max_useful_rung=LADDER[useful[-1]] if edge else None,
        max_stable_lr=LADDER[stable[-1]] * 1.2 if stable and bad else None,
        max_stable_lr_90=(LADDER[stable[-1]], LADDER[stable[-1]] * 1.5) if stable and bad else None,
        max_stable_rung=LADDER[stable[-1]] if stable and bad else None,
        censored=None if edge else "above" if useful else "below",
        stable_censored=None if stable and bad else "above" if stable else "below",
        useful_quantiles=() if edge is None else (edge,) * len(QUANTILES),
        first_diverged_lr=LADDER[min(bad)] if bad else None,
        first_diverged_reason=next((its.reason for its in ended if its.rung == min(bad, default=-1)), None),
        ratio=None
        if reference is None
        else Ratio(reference, 1.5, (1.2, 2.0), 0.97, 0.5, 2.0, (1.0, 4.0), 0.95, 0.7),
        val_loss=loss,
        val_perplexity=math.exp(loss) if loss is not None and perplexity else None,
        best_lr=None if best is None else LADDER[best],
        best_val_loss=None if best is None else losses[best],
        curve=Curve(
            points, (4.5, 4.2, 6.5), (4.4, 4.0, 5.0), (4.6, 4.4, 8.0), (0.0, 0.1, 0.9), (0.0, 0.0, 0.4)
        )
        if perplexity and edge
        else None,
        trials=len(ended),
        cut=sum(its.cut is not None for its in ended),
        optimizer_steps=sum(_steps(its) for its in ended),
        grid_steps=len(LADDER) * seeds * (facts.max_steps or 100),
        stopped="resolution",
        max_steps=facts.max_steps,
        precision=facts.precision,
    )


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
            Fake(3, val_loss=4.5, curves=norms(STEPS, 3, size=2.5)),
            Fake(3, 1, val_loss=None, cut=4.75),
            Fake(4, state="crash"),
        ],
    }
    add_search(stores, "full", full, seeds=2)


def _ended_early(fake: Fake) -> bool:
    return fake.cut is not None or (fake.reason is not None and fake.val_loss is None)


def _steps(fake: Fake) -> int:
    return 31 if _ended_early(fake) else 100


def _add_trial(study: VariantStudy, fake: Fake, perplexity: bool) -> FrozenTrial:
    claim = study.claim(Point(fake.rung, fake.seed), Owner.here())
    assert claim is not None
    if fake.state == "crash":
        study.fail(claim._trial_id, "crash")
    elif fake.state == "running":
        study.report(claim, 40, 5.25)
    else:
        known = perplexity and fake.val_loss is not None
        outcome = Outcome(
            value=LADDER[fake.rung],
            seed=fake.seed,
            reason=fake.reason,
            step=30 if _ended_early(fake) else 99,
            optimizer_steps=_steps(fake),
            val_loss=fake.val_loss,
            numbers={"perplexity": math.exp(fake.val_loss)} if known and fake.val_loss is not None else {},
            initial_loss=INITIAL,
            train_loss=4.0,
            seconds=2.5,
            cut=None if fake.cut is None else Cut(fake.cut, 0.1),
        )
        study.finish(claim, outcome)
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
    verdict = {"verdict": "diverged" if fake.reason else "stable", "reason": fake.reason or ""}
    client.log_batch(run_id, tags=[RunTag(*tag) for tag in verdict.items()])
    client.set_terminated(run_id)
