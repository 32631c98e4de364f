"""Jobs that answer at once, for pools and coordinators; importable by the children."""

import math
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from redline.errors import UserError


def echo(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    send({"doing": "half way"})
    print("out of the job")
    print("and its complaints", file=sys.stderr)
    return {"doubled": 2 * payload["n"], "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}


def nap(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    """Until a file ``until`` is there."""
    while not Path(payload["until"]).exists():
        time.sleep(0.01)
    return {"doubled": 2 * payload["n"]}


def send_too_much(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    print(os.getpid())
    send({"more than a pipe holds": "x" * (1 << 22)})
    return {}


def users_mistake(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    raise UserError("lr=-1: allowed: numbers above 0")


def bug(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    raise RuntimeError("a bug of ours")


def leave(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    sys.exit(3)


def die(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def sleep(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    send({"pid": os.getpid()})
    time.sleep(36_000)
    return {}


def sleep_deaf(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return sleep(payload, send)


def prepare(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    """Killed as often as its variant says."""
    ((name, cfg),) = payload["cfgs"].items()
    place = Path(cfg["place"])
    tries = len(list(place.glob("try-*")))
    (place / f"try-{tries}").touch()
    if tries < cfg["kills"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"precision": {name: "fp32"}}


def trial(payload: dict[str, Any], send: Any) -> dict[str, Any]:
    """A coordinator's trial. `cfg.fake`: ``edge`` (rates from there on diverge), ``losses`` (rate -> loss),
    ``spread`` (nats that each further seed adds), ``crashes`` (rate -> how often it crashes first),
    ``refuse`` (a rate the user should not have asked for), ``seconds`` it takes (or rate -> seconds),
    ``reports`` it makes between finding a file ``now`` and leaving ``reported``, ``deaf`` (it does not
    end when it is asked to), ``gate`` (the folder of tickets without which it does not end)."""
    cfg = payload["cfg"]
    fake, lr = cfg.fake, f"{cfg.lr:g}"
    place = Path(payload["directory"])
    place.mkdir(parents=True, exist_ok=True)
    if fake.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tries = len(list(place.glob("try-*")))
    (place / f"try-{tries}-{os.getpid()}").touch()
    send(
        {"step": 1, "max_steps": cfg.trainer.max_steps, "loss": 5.0, "run_id": f"run-{lr}-{cfg.seed}-{tries}"}
    )
    if "reports" in fake:
        while not (place / "now").exists():
            time.sleep(0.01)
        for _ in range(fake.reports):
            send({"step": 2, "max_steps": cfg.trainer.max_steps, "loss": 5.0, "run_id": None})
        (place / "reported").touch()
    seconds = fake.get("seconds", 0)
    time.sleep(seconds if isinstance(seconds, int | float) else seconds.get(lr, 0))
    if "gate" in fake:
        _take_a_ticket(Path(fake.gate))
    if tries < fake.get("crashes", {}).get(lr, 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if fake.get("refuse") == cfg.lr:
        raise UserError(f"lr={lr}: allowed: others")
    diverged = cfg.lr >= fake.edge
    val_loss = None if diverged else fake.get("losses", {}).get(lr, 4.0) + cfg.seed * fake.get("spread", 0)
    return {
        "lr": cfg.lr,
        "seed": cfg.seed,
        "diverged": diverged,
        "reason": "non_finite" if diverged else None,
        "step": cfg.trainer.max_steps - 1,
        "optimizer_steps": cfg.trainer.max_steps,
        "val_loss": val_loss,
        "val_perplexity": None if val_loss is None else math.exp(val_loss),
        "initial_loss": 6.0,
        "train_loss": math.nan if diverged else 4.0,
        "spikes": 0,
        "run_id": f"run-{lr}-{cfg.seed}-{tries}",
        "run_key": f"key-{lr}-{cfg.seed}",
    }


def _take_a_ticket(gate: Path) -> None:
    while not (gate / "open").exists():
        for ticket in gate.glob("ticket-*"):
            with suppress(FileNotFoundError):  # another trial was faster
                ticket.unlink()
                return
        time.sleep(0.02)
