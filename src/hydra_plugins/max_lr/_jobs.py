"""A search by the jobs of one of Hydra's launchers: Slurm's, Ray's, or any other.

Each job runs the user's own command again and so joins the search, as a second terminal would.
"""

import functools
import os
import sys
import textwrap
import time

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from redline.command_line import TRACEBACK_WANTED
from redline.commands.job_secrets import masked, take_out_passwords
from redline.errors import UnfinishedSearchError, UserError
from redline.search import Search, SearchResult
from redline.search.console.display import Display
from redline.search.engine import begin, make_console, show_result
from redline.search.store.searches import finished_results, forget_end, recipe_of
from redline.search.store.storage import check_storage, open_storage
from redline.search.workers.cluster_job import run_command
from redline.search.workers.pool import Pool, Slot

_USERS_MISTAKE = 2
_LONGEST_REASON = 400  # characters of what a launcher says


def search_by_jobs(
    search: Search, jobs: int, config: DictConfig, hydra_context: HydraContext
) -> SearchResult:
    """Start the jobs, wait for them, show what the search found.

    Raises UserError where a job met one, UnfinishedSearchError where the jobs ended before the search did,
    and KeyboardInterrupt.
    """
    check_storage(search.options.storage, f"{search.prefix}storage", search.home)
    begun = begin(search, Pool([Slot(0, None)]))
    name, options = begun.name, search.options
    launcher = config.hydra.runtime.choices["hydra/launcher"]
    display = Display(make_console())
    started = time.monotonic()
    forget_end(begun.storage, name, search.names)
    logs = config.hydra.launcher.get("submitit_folder")
    display.say(
        f"search {name}: {', '.join(search.names)} on {len(search.ladder)} rungs, by {jobs} job(s) through "
        f"{launcher}" + (f"; their logs: {logs}" if logs else "")
    )
    try:
        trouble = _launch(jobs, name, config, hydra_context)
    except KeyboardInterrupt:
        display.say(
            f"stopped waiting; jobs in a queue go on, those of this machine end; "
            f"the same command, or search.name={name}, goes on"
        )
        raise
    # Opened anew: a connection to a server may not have lasted as long as the jobs.
    storage = open_storage(options.storage, options.storage_timeout, f"{search.prefix}storage")
    results = finished_results(storage, name, search.names)
    if results is None:
        raise UnfinishedSearchError(
            f"search {name}: the jobs of hydra/launcher={launcher} ended before it did ({trouble}); "
            f"the same command, or search.name={name}, goes on"
        )
    display.say(f"done in {time.monotonic() - started:.0f} s")
    recipe = recipe_of(storage, name, search.names)
    return show_result(begun, results, recipe, display.console)


def _launch(count: int, name: str, config: DictConfig, hydra_context: HydraContext) -> str:
    """Run the jobs to their end; gives what went wrong with one of them, if anything did."""
    named = f"search.name={QuotedString(name, Quote.single).with_quotes()}"
    task = functools.partial(
        run_command,
        take_out_passwords(_words(config, named)),
        os.getcwd(),
        () if TRACEBACK_WANTED else ("HYDRA_FULL_ERROR",),
    )
    # A job's interpreter unpickles our objects, so it needs our import path.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=hydra_context, task_function=task, config=masked(config)
    )
    # Hydra composes a configuration a job: only its folder matters, and that no copy of it is kept.
    overrides = [named, "hydra.sweep.subdir=.", "hydra.output_subdir=null", "~hydra.callbacks.check_first"]
    try:
        ended = launcher.launch([overrides] * count, initial_job_idx=0)
    # Launchers raise many kinds of errors: no srun, an unknown partition, a lost node.
    except Exception as error:
        if TRACEBACK_WANTED:
            raise
        return _shorten(error)
    troubles = [trouble for job in ended if (trouble := _trouble(job))]
    return troubles[0] if troubles else "each said that it was done"


def _words(config: DictConfig, named: str) -> list[str]:
    """The user's command, to be run by a job: the search is known by name, and is not to launch jobs."""
    arguments = sys.argv[1:]
    given = {*config.hydra.overrides.hydra, *config.hydra.overrides.task}
    # Hydra's parser wants all overrides in one piece.
    end = max((i + 1 for i, word in enumerate(arguments) if word in given), default=len(arguments))
    # -m is among them.
    return ["-m", "redline", "train", *arguments[:end], named, "hydra.sweeper.jobs=null", *arguments[end:]]


def _trouble(job: JobReturn) -> str | None:
    """Raises UserError where the job ended with one."""
    if job.status == JobStatus.FAILED:
        return _shorten(job._return_value)  # its public name raises
    status, last_line = job.return_value
    if status == _USERS_MISTAKE:
        raise UserError(last_line.removeprefix("error: "))
    return _shorten(f"exit status {status}: {last_line}") if status else None


def _shorten(words: object) -> str:
    return textwrap.shorten(str(words), _LONGEST_REASON, placeholder=" …")
