"""What the benches share: contenders that train by turns in processes of their own, and the closing line."""

import argparse
import importlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

ROOT = Path(__file__).resolve().parents[1]
# Where `make bench` puts the peers: out of the product's sight, see requirements.lock.
PEERS = Path(sys.prefix) / "bench"
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from redline.training.precision import has_bf16  # noqa: E402

P = ParamSpec("P")
R = TypeVar("R")

NO_BF16 = "this CPU has no bf16 instructions"


@dataclass(frozen=True)
class Cell:
    """What every contender of a comparison trains: a GPT of one shape in one number format."""

    model: str  # of conf/model/
    precision: str  # fp32 | bf16
    width: int
    num_layers: int
    num_heads: int
    vocab_size: int
    batch_size: int  # sequences
    sequence_length: int  # tokens

    @classmethod
    def of(cls, name: str) -> "Cell":
        """The cell ``<model>_<precision>``, its shape read from the product's configuration."""
        model, _, precision = name.rpartition("_")
        path = ROOT / "conf" / "model" / f"{model}.yaml"
        if precision not in ("fp32", "bf16") or not path.is_file():
            raise argparse.ArgumentTypeError(f"{name}: allowed: a model of conf/model/ with _fp32 or _bf16")
        shape = OmegaConf.load(path)
        return cls(
            model,
            precision,
            shape.width,
            shape.num_layers,
            shape.num_heads,
            shape.vocab_size,
            OmegaConf.load(ROOT / "conf" / "data" / "_base.yaml").batch_size,
            shape.sequence_length,
        )

    @property
    def name(self) -> str:
        return f"{self.model}_{self.precision}"

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.sequence_length

    def __str__(self) -> str:
        return (
            f"{self.name}: width {self.width}, {self.num_layers} layers, {self.num_heads} heads, "
            f"{self.batch_size}x{self.sequence_length} tokens, vocabulary {self.vocab_size}"
        )


class Turn(NamedTuple):
    """One contender's part of a round, in seconds."""

    seconds: float
    inside: float  # of it, in the functions that the contender had timed


class Order(NamedTuple):
    """What a contender's turn is to be."""

    steps: int
    setting: str | None = None  # for a contender that can train in several


class Pace:
    """A contender's side of the race: it calls ``step_done`` after every step, and is held between turns.

    The first step, with everything before it, belongs to no turn. A contender that knows several settings
    puts a function in ``switch``, called with the turn's setting before its clock starts.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.switch: Callable[[str], None] | None = None
        self._start, self._steps_left, self._inside = time.perf_counter(), 1, 0.0

    def step_done(self) -> None:
        self._steps_left -= 1
        if self._steps_left == 0:
            self._connection.send(Turn(time.perf_counter() - self._start, self._inside))
            order: Order = self._connection.recv()
            if order.setting is not None:
                assert self.switch is not None
                self.switch(order.setting)
            self._steps_left, self._inside = order.steps, 0.0
            self._start = time.perf_counter()

    def timed(self, function: Callable[P, R]) -> Callable[P, R]:
        """``function``, its seconds counted in the turn's ``inside``."""

        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside += time.perf_counter() - start

        return counted


class Failed(NamedTuple):
    reason: str


@dataclass
class Contender:
    """A training loop, ``train(cell, pace, **options)`` of ``module``, run in a process of its own.

    Its own process means its own allocator, threads and imports: none can help or hurt another.
    """

    name: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    peer: bool = False  # needs the packages of requirements.lock

    def start(self, cell: Cell, folder: Path) -> None:
        """Whatever it writes, its output included, lands in ``folder``."""
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_run, args=(self, cell, folder, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def wait(self) -> Turn | Failed:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            return Failed(f"ended with status {self._process.exitcode}")

    def take_turn(self, steps: int, setting: str | None = None) -> Turn | Failed:
        self._connection.send(Order(steps, setting))
        return self.wait()

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _run(contender: Contender, cell: Cell, folder: Path, connection: Connection) -> None:
    folder.mkdir()
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    if contender.peer:
        sys.path.append(str(PEERS))
    try:
        importlib.import_module(contender.module).train(cell, Pace(connection), **contender.options)
    except ModuleNotFoundError as missing:
        connection.send(Failed(f"{missing.name} is not installed: make bench"))
        raise
    except Exception as error:
        connection.send(Failed(f"{type(error).__name__}: {error}"))
        raise
    connection.send(Failed("stopped training by itself"))


@dataclass
class Race:
    """The turns of each contender, one a round, and why a contender dropped out."""

    steps: int  # of a turn
    turns: dict[str, list[Turn]]
    failed: dict[str, str]

    def steps_per_second(self, name: str) -> list[float]:
        return [self.steps / seconds for seconds in self.seconds(name)]

    def seconds(self, name: str) -> list[float]:
        return [turn.seconds for turn in self.turns[name]]

    def ratios(self, slower: str, faster: str) -> list[float]:
        """How often ``faster`` goes into ``slower``, round by round: what disturbs a round disturbs both."""
        pairs = zip(self.seconds(slower), self.seconds(faster), strict=True)
        return [slow / fast for slow, fast in pairs]


def race(contenders: Sequence[Contender], cell: Cell, *, rounds: int, steps: int, warmup: int) -> Race:
    """``rounds`` turns of ``steps`` for everyone, one at a time, in an order that rotates.

    ``warmup`` steps of each come first and do not count.
    """
    result = Race(steps, {contender.name: [] for contender in contenders}, {})
    running = list(contenders)

    def note(contender: Contender, turn: Turn | Failed, counts: bool = False) -> None:
        if isinstance(turn, Failed):
            running.remove(contender)
            result.failed[contender.name] = turn.reason
            del result.turns[contender.name]
            print(f"  {contender.name}: left out: {turn.reason}", flush=True)
        elif counts:
            result.turns[contender.name].append(turn)

    # The sender of a contender that was stopped goes on for some seconds, and writes there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            for contender in contenders:
                contender.start(cell, Path(folder) / contender.name)
            for contender in contenders:
                note(contender, contender.wait())
            for contender in list(running):
                note(contender, contender.take_turn(warmup))
            for index in range(rounds):
                first = index % max(1, len(running))
                for contender in running[first:] + running[:first]:
                    note(contender, contender.take_turn(steps), counts=True)
        finally:
            for contender in contenders:
                contender.stop()
    return result


def spread(values: Sequence[float], form: str) -> str:
    """Median and range, each in the number format ``form``."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def percent(value: float) -> str:
    return f"{100 * value:.2f}%"


def machine() -> str:
    """What the numbers depend on; the load tells whether the machine was quiet."""
    cpu = "unknown CPU"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        cpu = next(
            (line.partition(":")[2].strip() for line in cpuinfo.open() if line.startswith("model name")), cpu
        )
    bf16 = "bf16 instructions" if has_bf16(torch.device("cpu")) else "no bf16 instructions"
    return (
        f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {bf16}"
    )


Bar = dict[str, Any]


def at_least(bar: float, value: float) -> Bar:
    return {"value": round(value, 4), "bar": bar, "held": value >= bar}


def at_most(bar: float, value: float) -> Bar:
    return {"value": round(value, 4), "bar": bar, "held": value <= bar}


def measured(value: float | None) -> Bar:
    """What no bar is set for."""
    return {"value": value if value is None else round(value, 4), "bar": None, "held": None}


def not_measured(bar: float, reason: str) -> Bar:
    return {"value": None, "bar": bar, "held": False, "reason": reason}


def finish(bench: str, bars: dict[str, Bar]) -> None:
    """Every bench's last line."""
    print(json.dumps({"bench": bench, "bars": bars}))


def arguments(description: str | None, *, cells: Iterable[str], rounds: int) -> argparse.ArgumentParser:
    """The options of a bench that races contenders over cells."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--cells",
        nargs="+",
        type=Cell.of,
        default=[Cell.of(name) for name in cells],
        metavar="MODEL_PRECISION",
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--steps", type=int, help="of each contender a round; default: by the model")
    return parser
