"""One search, from its first look at the variants to its table."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from redline.search.coordinator import Coordinator, Settings
from redline.search.display import Display
from redline.search.housekeeping import Housekeeping
from redline.search.patient_storage import PatientStorage
from redline.search.pool import Pool
from redline.search.register import open_studies
from redline.search.result import write_result
from redline.search.table import result_table
from redline.search.variant import Variant
from redline.stability import SearchRule, build_rules

_WIDTH = 120  # columns, where the output is no terminal


def run_search(
    settings: Settings,
    variants: Sequence[Variant],
    asked: str,
    storage: PatientStorage,
    pool: Pool,
    reference: str,
) -> dict[str, Any]:
    """Find every variant's edge, write ``result.json``, print the table; gives what the file holds.

    ``asked`` is the question's fingerprint, ``reference`` the variant that the table's ratios are to.
    Raises UserError, OutageError, KeyboardInterrupt.
    """
    name, ladder = settings.name, settings.ladder
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    with Display(console) as display:
        storage.say = display.say
        try:
            started = time.monotonic()
            display.say(
                f"search {name}: {', '.join(variant.name for variant in variants)} on {len(ladder)} rungs "
                f"from {ladder[0]:g} to {ladder[-1]:g}, {settings.seeds} seed(s), {len(pool.slots)} worker(s)"
            )
            housekeeping = Housekeeping(pool, settings.directory, display, settings.retries)
            precision = housekeeping.prepare(variants, name)
            studies = open_studies(storage, name, asked, variants, ladder, settings.seeds, precision)
            rules = {variant.name: build_rules(variant.cfg.divergence, SearchRule) for variant in variants}
            coordinator = Coordinator(settings, variants, studies, storage, rules, pool, display)
            entries = coordinator.run()
            housekeeping.tidy(coordinator, variants[0].cfg.tracker.get("tracking_uri"))
        except KeyboardInterrupt:
            display.say(f"stopped; the same command, or search.name={name}, goes on")
            raise
        display.say(f"done in {time.monotonic() - started:.0f} s")
    result = {"search": name, "ladder": ladder, "seeds": settings.seeds, "variants": entries}
    path = settings.directory / "result.json"
    write_result(path, result)
    for study in studies.values():
        study.study.set_user_attr("finished", True)
    console.print(result_table(result, reference))
    console.print(f"result: {path}", soft_wrap=True)
    console.print("curves: make ui (MLflow), trials: make dashboard (Optuna)", soft_wrap=True)
    return result
