"""One search, from its first look at the variants to its table."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from redline.search.console.display import Display
from redline.search.console.table import result_table
from redline.search.coordinator import Coordinator
from redline.search.housekeeping import Housekeeping
from redline.search.mlflow_pages import charts_page
from redline.search.policy.answer import write_result
from redline.search.publish import Publishing, publish
from redline.search.settings import Settings
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.searches import open_studies
from redline.search.variant import Variant, with_scout
from redline.search.workers.pool import Pool
from redline.stability import SearchRule, build_rules

_WIDTH = 160  # columns, where the output is no terminal


def run_search(
    settings: Settings,
    variants: Sequence[Variant],
    asked: str,
    storage: PatientStorage,
    pool: Pool,
    publishing: Publishing,
) -> dict[str, Any]:
    """Find every variant's edge, write ``result.json``, print the table; gives what the file holds.

    ``asked`` is the question's fingerprint. The report comes last: by then the search has its answer.
    Raises UserError, OutageError, KeyboardInterrupt.
    """
    name, ladder = settings.name, settings.ladder
    console = make_console()
    with Display(console) as display:
        storage.say = display.say
        try:
            started = time.monotonic()
            display.say(
                f"search {name}: {', '.join(variant.name for variant in variants)} on {len(ladder)} rungs "
                f"from {ladder[0]:g} to {ladder[-1]:g}, {settings.seeds} seed(s), {len(pool.slots)} worker(s)"
            )
            housekeeping = Housekeeping(pool, settings.directory, display, settings.retries)
            precision = housekeeping.prepare(variants)
            tasks = list(variants)
            if settings.scout_steps is not None:
                pairs = [with_scout(variant, settings.scout_steps) for variant in variants]
                tasks = [task for pair in pairs for task in pair]
                precision |= {scout.name: precision[variant.name] for variant, scout in pairs}
            studies = open_studies(storage, name, asked, tasks, ladder, settings.seeds, precision)
            rules = {task.name: build_rules(task.cfg.divergence, SearchRule) for task in tasks}
            coordinator = Coordinator(settings, tasks, studies, storage, rules, pool, display)
            tracker = variants[0].cfg.tracker
            tracking_uri = OmegaConf.select(tracker, "mlflow.tracking_uri")
            ui = OmegaConf.select(variants[0].cfg, "search.mlflow_ui")
            with housekeeping.sending(tracker):
                entries = coordinator.run()
            experiment_id = housekeeping.tidy(coordinator, tracker)
        except KeyboardInterrupt:
            display.say(f"stopped; the same command, or search.name={name}, goes on")
            raise
        display.say(f"done in {time.monotonic() - started:.0f} s")
    result = {"search": name, "ladder": ladder, "seeds": settings.seeds, "variants": entries}
    charts = charts_page(ui, experiment_id) if ui and experiment_id else None
    show_result(console, result, settings.directory, publishing.reference, charts)
    for variant, entry in entries.items():
        studies[variant].answer(entry)
    for study in studies.values():
        study.study.set_user_attr("finished", True)
    publish(publishing, pool, name, settings.directory, tracking_uri, display.say)
    return result


def make_console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def show_result(
    console: Console, result: Mapping[str, Any], directory: Path, reference: str, charts: str | None = None
) -> None:
    """Write ``result.json``, print its table and where to look; ``charts``: the curves' page in MLflow."""
    path = directory / "result.json"
    write_result(path, result)
    console.print(result_table(result, reference))
    console.print(f"result: {path}", soft_wrap=True)
    console.print("curves: make ui (MLflow)" + (f", then {charts}" if charts else ""), soft_wrap=True)
    console.print("trials: make dashboard (Optuna)", soft_wrap=True)
