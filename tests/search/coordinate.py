"""A coordinator whose trials are a `Fake`'s, here or as one of several processes on a storage."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fake_trainable import RULES, Fake
from omegaconf import OmegaConf
from rich.console import Console

from redline.config import shipped
from redline.search import Options, Variant, VariantResult
from redline.search.console.display import Display
from redline.search.coordinator import Coordinator
from redline.search.store.searches import open_studies
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.search.variant import with_short_runs
from redline.search.workers.pool import Pool, Slot

OPTIONS = Options(
    key="lr",
    storage="",
    workers=2,
    seeds=1,
    criterion="useful",
    lost_share=0.25,
    resolution=1.5,
    settled=1.01,
    budget=None,
    claim=None,
    extend=False,
    min=None,
    max=None,
    cut=0.0,
    short_run_steps=None,
    retries=2,
    heartbeat_every=5.0,
    heartbeat_timeout=60.0,
    storage_timeout=600.0,
    grace_period=2.0,
    report_timeout=None,
    reference="qk",
    prior=OmegaConf.to_container(shipped("hydra/sweeper/max_lr").prior),
)


@dataclass
class Coordinated:
    """A search that has ended, its studies, and what it said."""

    studies: dict[str, VariantStudy]
    results: dict[str, VariantResult] = field(default_factory=dict)
    said: str = ""


def coordinate(
    url: str,
    directory: str,
    variants: Mapping[str, Mapping[str, Any]],
    *,
    ladder: Sequence[float],
    meanwhile: Callable[[dict[str, VariantStudy]], Any] = lambda studies: None,
    **changed: Any,
) -> Coordinated:
    """Search to the end. ``variants``: name -> what its `Fake` is told; ``changed``: of the options."""
    options = Options(**{**vars(OPTIONS), "storage": url, **changed})
    named = [Variant(name, Fake(**fake), RULES, first_seed=7) for name, fake in variants.items()]
    if options.short_run_steps is not None:
        pairs = [with_short_runs(variant, options.short_run_steps) for variant in named]
        named = [variant for pair in pairs for variant in pair]
    storage = open_storage(url, options.storage_timeout)
    common = {
        "fingerprint": "asked",
        "ladder": list(ladder),
        "seeds": options.seeds,
        "key": options.key,
        "label": "LR",
        "criterion": options.criterion,
        "lost_share": options.lost_share,
        "claim": options.claim,
        "recipe": {},
    }
    facts = {variant.name: variant.trainable.facts() for variant in named}
    studies = open_studies(storage, url, "search", named, common, facts)
    console = Console(file=io.StringIO(), width=200)
    display = Display(console)
    storage.say = display.say
    assert options.workers is not None
    pool = Pool([Slot(index, None) for index in range(options.workers)], preload=["fake_trainable"])
    coordinator = Coordinator("search", Path(directory), options, named, studies, storage, pool, 1, display)
    done = Coordinated(studies)
    meanwhile(studies)
    done.results = coordinator.run()
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
            [*within, sys.executable, here / "coordinate.py", json.dumps(arguments)],
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

    def results(self, seconds: float = 600) -> list[dict[str, VariantResult]]:
        """What each of them found."""
        ended = [(process, *process.communicate(timeout=seconds)) for process in self.processes]
        for process, _, err in ended:
            assert process.returncode == 0, err
        return [
            {name: VariantResult.from_dict(entry) for name, entry in json.loads(out).items()}
            for _, out, _ in ended
        ]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def main() -> None:
    print("ready", flush=True)
    sys.stdin.readline()  # wait for the start
    done = coordinate(**json.loads(sys.argv[1]))
    print(json.dumps({name: asdict(its) for name, its in done.results.items()}))


if __name__ == "__main__":
    main()
