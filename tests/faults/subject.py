"""A search under test: the command that runs it, its folder, and the coordinators that were started."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from processes import MARK, Process, marked
from tickets import Gate

from postgresql_server import PostgreSQL

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_PATH = [HERE / "stepped_clock", HERE, HERE.parent / "search", ROOT / "src"]


@dataclass
class Coordinator:
    """One start of the command."""

    process: subprocess.Popen[bytes]
    log: Path
    killed: bool = False
    interrupted: bool = False  # was told to stop, and must have done so in good order
    deaf: bool = False  # did not stop when it was told to
    without_storage: bool = False  # for a while; may have said so in one line and ended

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal_group(self, number: signal.Signals) -> None:
        if self.alive:
            os.killpg(self.process.pid, number)

    def complaint(self) -> str | None:
        """What is wrong with how it ended."""
        if self.deaf:
            return f"{self.log}: told to stop, it did not"
        status, said = self.process.returncode, self.log.read_text()
        if status == 0 or (self.killed and not self.interrupted):
            return None
        if self.without_storage and status in (1, 2) and "error: " in said and "Traceback" not in said:
            return None
        last = said.strip().splitlines()[-1:] or ["nothing"]
        if not self.interrupted:
            return f"{self.log}: it ended by itself with status {status}, saying {last[0]}"
        # A signal that comes in its first imports is Python's own affair.
        if status in (-signal.SIGINT, -signal.SIGTERM) and (not said or said.startswith("Traceback")):
            return None
        if status == 1 and "stopped" in said and "Traceback" not in said:
            return None
        return f"{self.log}: told to stop, it ended with status {status}, saying {last[0]}"


@dataclass
class Subject:
    """``folder`` is the search's working directory; what is said about it lies in ``notes``."""

    command: Sequence[str]
    folder: Path
    notes: Path
    server: PostgreSQL | None = None  # that the search's storage is on
    database: str | None = None
    disk: Path | None = None  # a small file system of its own, which holds the folder
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[Coordinator] = field(default_factory=list)
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.notes / "gate")

    @property
    def directory(self) -> Path:
        return self.folder / "mlruns" / "searches" / "faults"

    @property
    def result(self) -> Path:
        return self.directory / "result.json"

    @property
    def storage(self) -> str:
        if self.server is None:
            return f"sqlite:///{self.folder / 'mlruns' / 'optuna.db'}"
        assert self.database is not None
        return self.server.url(self.database)

    @property
    def clock(self) -> Path:
        return self.notes / "clock"

    @property
    def history(self) -> Path:
        return self.notes / "struck.txt"

    def start(self) -> Coordinator:
        log = self.notes / f"coordinator-{len(self.started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.command, f"hydra.sweeper.storage={self.storage}"],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_ctrl_c,
                env={
                    **os.environ,
                    MARK: self.mark,
                    "REDLINE_FAULTS_CLOCK": str(self.clock),
                    "REDLINE_FAULTS_GATE": str(self.gate.folder),
                    "PYTHONPATH": os.pathsep.join(str(path) for path in _PATH),
                },
            )
        self.started.append(Coordinator(process, log))
        return self.started[-1]

    def alive(self) -> list[Coordinator]:
        return [coordinator for coordinator in self.started if coordinator.alive]

    def processes(self) -> list[Process]:
        return marked(self.mark)

    @property
    def answered(self) -> bool:
        """Whether one of the coordinators ended with the search."""
        return any(coordinator.process.poll() == 0 for coordinator in self.started)

    def finish(self, seconds: float) -> str | None:
        """Leave it alone until it has its answer, starting it again where nobody works on it.

        Gives what was wrong with that.
        """
        deadline = time.monotonic() + seconds
        starts = 0
        while self.alive() or not self.answered:
            if time.monotonic() > deadline:
                return f"no answer {seconds:g} s after the last fault"
            if not self.alive():
                starts += 1
                if starts > 2:
                    return "started three times after the last fault, it ended without an answer"
                self.start()
            time.sleep(0.1)
        return None

    def end(self) -> None:
        for process in self.processes():
            process.send(signal.SIGKILL)
        for coordinator in self.started:
            coordinator.process.wait()


def _hear_ctrl_c() -> None:
    """A shell that starts us in the background has every process below ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def quick() -> list[str]:
    """A search with real coordinators and storage; its trials answer as soon as its gate lets them."""
    return [sys.executable, "-c", "import quick_search; quick_search.main()"]


def real() -> list[str]:
    """`src/train.py -m` on the smallest model, with checkpoints and MLflow."""
    return [
        sys.executable,
        str(ROOT / "src" / "train.py"),
        "-m",
        "experiment=smoke",
        "norm=baseline,qk",
        "search.name=faults",
        "trainer.accelerator=cpu",
        "trainer.precision=fp32",
        "trainer.checkpoint_every=5",
        "hydra.sweeper.workers=2",
        "hydra.sweeper.report_timeout=null",
        # All of the grid is run: which runs a search chooses depends on the order in which they end.
        "hydra.sweeper.resolution=1.0001",
        "hydra.sweeper.settled=1",
        "hydra.sweeper.extend=false",
        "hydra.sweeper.cut=0",
        "hydra.sweeper.retries=100000",
        "hydra.sweeper.heartbeat_every=0.5",
        "hydra.sweeper.heartbeat_timeout=10",
    ]


def on_ranks() -> list[str]:
    """The same with trials of two processes, one at a time."""
    return [*real(), "trainer=ddp", "trainer.devices=2", "trainer.rank_timeout=10", "hydra.sweeper.workers=1"]
