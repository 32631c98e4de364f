"""A coordinator whose trials are `fake_jobs.trial`. ``main`` reads the arguments of ``coordinate`` as JSON
and prints the result: one of several on the same storage."""

import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from search_helpers import DEGRADED

from redline.search.coordinator import Coordinator, Settings
from redline.search.display import Display
from redline.search.pool import Pool, Slot
from redline.search.register import open_studies
from redline.search.study import VariantStudy, open_storage
from redline.search.variant import Variant


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
    patience: float = 60.0,
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
    precision = {name: "fp32" for name in variants}
    studies = open_studies(open_storage(url), "search", "asked", named, ladder, seeds, precision)
    console = Console(file=io.StringIO(), width=200)
    coordinator = Coordinator(
        Settings(
            name="search",
            directory=Path(directory),
            ladder=list(ladder),
            seeds=seeds,
            vote="majority",
            retries=retries,
            beat_every=beat_every,
            patience=patience,
            trial_job="fake_jobs:trial",
            threads=1,
        ),
        named,
        studies,
        {name: DEGRADED for name in variants},
        Pool([Slot(index, None) for index in range(workers)], preload=["fake_jobs", "omegaconf"]),
        Display(console),
    )
    done = Coordinated(studies)
    meanwhile(studies)
    done.entries = coordinator.run()
    done.late = coordinator.late_verdicts()
    assert isinstance(console.file, io.StringIO)
    done.said = console.file.getvalue()
    return done


def main() -> None:
    """For `python -c`: a script of its own would be imported again by every trial."""
    print("ready", flush=True)
    sys.stdin.readline()  # wait for the start
    print(json.dumps(coordinate(**json.loads(sys.argv[1])).entries))
