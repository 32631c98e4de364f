"""A coordinator whose trials are `fake_jobs.trial`, here or as one of several processes on a storage."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from redline.search.settings import Settings
from rich.console import Console
from search_helpers import DEGRADED

from redline.search.console.display import Display
from redline.search.coordinator import Coordinator
from redline.search.store.searches import open_studies
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.search.variant import Variant, with_scout
from redline.search.workers.pool import Pool, Slot


@dataclass
class Coordinated:
    """A search that has ended, its studies, and what it said."""

    studies: dict[str, VariantStudy]
    entries: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    late: dict[str, str] = field(default_factory=dict)


def coordinate(
    url: str,
    directory: str,
    variants: Mapping[str, Mapping[str, Any]],
    *,
    ladder: Sequence[float],
    seeds: int = 1,
    retries: int = 2,
    workers: int = 2,
    beat_every: float = 5.0,
    scout_steps: int | None = None,
    patience: float = 60.0,
    storage_patience: float = 600.0,
    meanwhile: Callable[[dict[str, VariantStudy]], Any] = lambda studies: None,
) -> Coordinated:
    """Search to the end. ``variants``: name -> what `fake_jobs.trial` calls ``cfg.fake``."""
    named = [
        Variant(
            name,
            (),
            OmegaConf.create(
                {
                    "lr": 0.0,
                    "seed": 7,
                    "fake": fake,
                    "trainer": {
                        "max_steps": 10,
                        "precision": "fp32",
                        "keep_checkpoint": True,
                        "threads": None,
                    },
                }
            ),
        )
        for name, fake in variants.items()
    ]
    if scout_steps is not None:
        named = [task for variant in named for task in with_scout(variant, scout_steps)]
    precision = {variant.name: "fp32" for variant in named}
    storage = open_storage(url, storage_patience)
    studies = open_studies(storage, "search", "asked", named, ladder, seeds, precision)
    console = Console(file=io.StringIO(), width=200)
    display = Display(console)
    storage.say = display.say
    coordinator = Coordinator(
        Settings(
            name="search",
            directory=Path(directory),
            ladder=list(ladder),
            seeds=seeds,
            vote="majority",
            doubt=1.0,
            scout_steps=scout_steps,
            retries=retries,
            beat_every=beat_every,
            patience=patience,
            trial_job="fake_jobs:trial",
            threads=1,
        ),
        named,
        studies,
        storage,
        {variant.name: DEGRADED for variant in named},
        Pool([Slot(index, None) for index in range(workers)], preload=["fake_jobs", "omegaconf"]),
        display,
    )
    done = Coordinated(studies)
    meanwhile(studies)
    done.entries = coordinator.run()
    done.late = coordinator.late_verdicts()
    assert isinstance(console.file, io.StringIO)
    done.said = console.file.getvalue()
    return done


class Coordinators:
    """Processes that each ``coordinate``; ``within``: the words of a command to start one with."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, within: Sequence[str] = (), **arguments: Any) -> subprocess.Popen[str]:
        here = Path(__file__).parent
        process = subprocess.Popen(
            # A script of its own would be imported again by every trial.
            [*within, sys.executable, "-c", "import coordinate; coordinate.main()", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[1] / "src"), str(here)])},
        )
        self.processes.append(process)
        return process

    def go(self, processes: Sequence[subprocess.Popen[str]] | None = None) -> None:
        """Let these, or all, begin at the same moment."""
        processes = self.processes if processes is None else processes
        for process in processes:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def entries(self, seconds: float = 600) -> list[dict[str, Any]]:
        """What each of them found."""
        ended = [(process, *process.communicate(timeout=seconds)) for process in self.processes]
        for process, _, err in ended:
            assert process.returncode == 0, err
        return [json.loads(out) for _, out, _ in ended]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def main() -> None:
    print("ready", flush=True)
    sys.stdin.readline()  # wait for the start
    print(json.dumps(coordinate(**json.loads(sys.argv[1])).entries))
