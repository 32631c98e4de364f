"""A search by the jobs of one of Hydra's launchers: Slurm's, Ray's, or any other.

Each job runs the user's own command again and so joins the search, as a second terminal would.
"""

import functools
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from hydra_plugins.max_lr.config import MaxLRSweeperConf
from redline.command_line import TRACEBACK_WANTED
from redline.errors import UnfinishedSearchError, UserError
from redline.search.console.display import Display
from redline.search.run import make_console, show_result
from redline.search.settings import Settings
from redline.search.store.searches import finished_entries, forget_end
from redline.search.store.storage import open_storage
from redline.search.variant import Variant
from redline.search.workers.cluster_job import run_command

_USERS_MISTAKE = 2
_LONGEST_REASON = 400  # characters of what a launcher says


def search_by_jobs(
    settings: MaxLRSweeperConf,
    plan: Settings,
    variants: Sequence[Variant],
    config: DictConfig,
    hydra_context: HydraContext,
) -> dict[str, Any]:
    """Start the jobs, wait for them, show what the search found; gives what `result.json` holds.

    Raises UserError where a job met one, UnfinishedSearchError where the jobs ended before the search did,
    and KeyboardInterrupt.
    """
    assert settings.jobs is not None
    name, names = plan.name, [variant.name for variant in variants]
    launcher = config.hydra.runtime.choices["hydra/launcher"]
    console = make_console()
    display = Display(console)
    began = time.monotonic()
    forget_end(open_storage(settings.storage, settings.storage_patience), name, names)
    logs = config.hydra.launcher.get("submitit_folder")
    display.say(
        f"search {name}: {', '.join(names)} on {len(plan.ladder)} rungs, by {settings.jobs} job(s) through "
        f"{launcher}" + (f"; their logs: {logs}" if logs else "")
    )
    try:
        trouble = _launch(settings.jobs, name, config, hydra_context)
    except KeyboardInterrupt:
        display.say(
            f"stopped waiting; jobs in a queue go on, those of this machine end; "
            f"the same command, or search.name={name}, goes on"
        )
        raise
    # Opened anew: a connection to a server may not have lasted as long as the jobs.
    entries = finished_entries(open_storage(settings.storage, settings.storage_patience), name, names)
    if entries is None:
        raise UnfinishedSearchError(
            f"search {name}: the jobs of hydra/launcher={launcher} ended before it did ({trouble}); "
            f"the same command, or search.name={name}, goes on"
        )
    display.say(f"done in {time.monotonic() - began:.0f} s")
    result = {"search": name, "ladder": plan.ladder, "seeds": plan.seeds, "variants": entries}
    show_result(console, result, plan.directory, settings.reference)
    return result


def _launch(count: int, name: str, config: DictConfig, hydra_context: HydraContext) -> str:
    """Run the jobs to their end; gives what went wrong with one of them, if anything did."""
    named = f"search.name={QuotedString(name, Quote.single).with_quotes()}"
    task = functools.partial(
        run_command, _words(config, named), os.getcwd(), () if TRACEBACK_WANTED else ("HYDRA_FULL_ERROR",)
    )
    # A job's interpreter unpickles what is ours, so it must find what we find.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=hydra_context, task_function=task, config=config
    )
    # Hydra composes a configuration a job: only its folder matters, and that no copy of it is kept.
    overrides = [named, "hydra.sweep.subdir=.", "hydra.output_subdir=null"]
    try:
        ended = launcher.launch([overrides] * count, initial_job_idx=0)
    # A launcher raises what it likes: no srun, a partition that there is not, a node that went away.
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
