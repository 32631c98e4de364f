"""One search, from its variants to its table: what the Hydra plugin and the Python API both call."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from redline.errors import UserError
from redline.search.console.display import Display
from redline.search.console.table import result_table
from redline.search.coordinator import Coordinator
from redline.search.request import AtEnd, EndedSearch, Search, check_name
from redline.search.result import SearchResult, VariantResult
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.record import ASKED
from redline.search.store.searches import choose_name, open_studies
from redline.search.store.storage import check_storage, open_storage
from redline.search.trainable import Facts
from redline.search.variant import fingerprint, with_short_runs
from redline.search.workers import tasks
from redline.search.workers.devices import make_slots
from redline.search.workers.pool import Ended, Pool

# Options that decide the answer, beside the seeds and the ladder's key.
_DECIDING = (
    "criterion",
    "lost_share",
    "resolution",
    "settled",
    "budget",
    "extend",
    "min",
    "max",
    "cut",
    "prior",
)
_WIDTH = 160  # columns, where the output is no terminal


@dataclass(frozen=True)
class Begun:
    """A search whose settings are checked and whose name and folder are known. Nothing trains yet."""

    search: Search
    name: str
    directory: Path
    fingerprint: str
    storage: PatientStorage


def begin(search: Search, pool: Pool) -> Begun:
    """Find the user's mistakes in one child process; then open the storage, choose the name, make the folder.

    Raises UserError, before anything is started or written where it is about the settings.
    """
    search.check()
    options = search.options
    trainables = {variant.name: variant.trainable for variant in search.variants}
    ended = pool.call(tasks.check, (trainables,), hear=_print, tries=options.retries + 1)
    settings = _result("check", ended)
    rest = {
        "key": options.key,
        "seeds": options.seeds,
        "rules": {variant.name: dict(variant.rules) for variant in search.variants},
        "first_seeds": [variant.first_seed for variant in search.variants],
        **{name: getattr(options, name) for name in _DECIDING},
    }
    asked = fingerprint(settings, search.ladder, rest)
    search.home.mkdir(parents=True, exist_ok=True)
    storage = open_storage(options.storage, options.storage_timeout, f"{search.prefix}storage")
    name = choose_name(storage, search.name, asked, search.names, search.name_key)
    check_name(search.name_key, name)  # it may be that of a search in the storage
    return Begun(search, name, search.place(name), asked, storage)


def _print(line: str) -> None:
    print(line, flush=True)


def run_search(search: Search, at_end: Sequence[AtEnd] = ()) -> SearchResult:
    """Find every variant's edge, write ``result.json``, print the table.

    The actions ``at_end`` come last, when the search has its answer. Raises UserError, OutageError,
    KeyboardInterrupt.
    """
    search.check()  # before a process is started
    check_storage(search.options.storage, f"{search.prefix}storage", search.home)
    devices = max(variant.trainable.devices for variant in search.variants)
    slots, threads, note = make_slots(search.options.workers, search.accelerator, devices)
    if note is not None:
        print(f"note: {note}", flush=True)
    named = (name for variant in search.variants for name in variant.trainable.preload)
    preload = dict.fromkeys([tasks.__name__, *named])  # ours too: a second of each trial
    pool = Pool(slots, list(preload))
    pool.warm_up()
    begun = begin(search, pool)
    with Display(make_console()) as display:
        begun.storage.say = display.say
        try:
            return _search(begun, pool, threads, display, at_end)
        except KeyboardInterrupt:
            display.say(f"stopped; {search.goes_on(begun.name)}")
            raise


def _search(
    begun: Begun, pool: Pool, threads: int | None, display: Display, at_end: Sequence[AtEnd]
) -> SearchResult:
    search, name, options = begun.search, begun.name, begun.search.options
    started = time.monotonic()
    display.say(
        f"search {name}: {', '.join(search.names)} on {len(search.ladder)} rungs from {search.ladder[0]:g} "
        f"to {search.ladder[-1]:g}, {options.seeds} seed(s), {len(pool.slots)} worker(s)"
    )
    trainables = {variant.name: variant.trainable for variant in search.variants}
    log = begun.directory / "prepare.log"
    ended = pool.call(tasks.prepare, (trainables,), log, hear=display.say, tries=options.retries + 1)
    attributes = {
        "fingerprint": begun.fingerprint,
        "ladder": list(search.ladder),
        "seeds": options.seeds,
        "key": options.key,
        "label": search.label,
        **{name: getattr(options, name) for name in ASKED if name != "recipe"},
    }
    facts, variants = _result("prepare", ended, log), list(search.variants)
    attributes["recipe"] = _common_recipe(facts)
    if options.short_run_steps is not None:
        pairs = [with_short_runs(variant, options.short_run_steps) for variant in search.variants]
        variants = [each for pair in pairs for each in pair]
        for full, short in pairs:
            # What was measured, such as the faster precision, holds for both.
            facts[short.name] = facts[full.name].of_length(options.short_run_steps)
    studies = open_studies(begun.storage, options.storage, name, variants, attributes, facts)
    coordinator = Coordinator(
        name, begun.directory, options, variants, studies, begun.storage, pool, threads, display
    )
    results = coordinator.run()
    display.say(f"done in {time.monotonic() - started:.0f} s")
    recipe = next(iter(studies.values())).attributes["recipe"]
    result = show_result(begun, results, recipe, display.console)
    for variant, its in results.items():
        studies[variant].answer(its)
    for study in studies.values():
        study.study.set_user_attr("finished", True)
    told = EndedSearch(name, begun.directory, options.storage, options.reference)
    for action in at_end:
        if not _do(action, told, pool, display):
            break
    return result


def _do(action: AtEnd, search: EndedSearch, pool: Pool, display: Display) -> bool:
    """False after Ctrl-C. Failures are not raised: the search has its answer."""
    log = search.directory / f"{action.name}.log"
    try:
        ended = pool.call(_called, (action, search), log, hear=display.say, timeout=action.timeout)
    except (KeyboardInterrupt, OSError, EOFError) as error:
        ended = Ended(crash=type(error).__name__)
    if ended.result is None:
        why = f"{ended.user_error or ended.crash}; log: {log}"
        command = action.command.format(search=search.name)
        display.say(f"{action.name}: not done ({why}); `{command}` does it")
    for line in ended.result or ():
        display.say(line)
    return ended.crash != KeyboardInterrupt.__name__


def _called(action: AtEnd, search: EndedSearch, send: Any) -> Sequence[str]:
    return action(search)


def _result(what: str, ended: Ended, log: Path | None = None) -> Any:
    if ended.user_error is not None:
        raise UserError(ended.user_error)
    if ended.crash is not None:
        raise RuntimeError(f"{what} failed ({ended.crash})" + (f"; its log is in {log}" if log else ""))
    return ended.result


def _common_recipe(facts: Mapping[str, Facts]) -> dict[str, Any]:
    """What an edge depends on, as far as all variants share it; the rest is in the variants' names."""
    first, *others = [its.recipe for its in facts.values()]
    return {key: value for key, value in first.items() if all(its.get(key) == value for its in others)}


def make_console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def show_result(
    begun: Begun, results: Mapping[str, VariantResult], recipe: Mapping[str, Any], console: Console
) -> SearchResult:
    """Write ``result.json``, print its table and where to look."""
    search, options, path = begun.search, begun.search.options, begun.directory / "result.json"
    asked = {name: getattr(options, name) for name in ASKED if name != "recipe"}
    result = SearchResult(
        begun.name, search.ladder, options.seeds, results, options.key, search.label, recipe, **asked
    )
    result.write(path)
    console.print(result_table(result, options.reference))
    console.print(f"result: {path}", soft_wrap=True)
    console.print("trials: redline dashboard (Optuna)", soft_wrap=True)
    return result
