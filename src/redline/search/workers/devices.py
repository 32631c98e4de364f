"""The devices a search may use: NVIDIA's driver is asked, and torch in a child where only torch can tell."""

import os
import platform
import runpy
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pynvml as nvml

from redline.search.workers.pool import Slot

_DEV = Path("/dev")
_SIGNS = ("nvidia*", "kfd", "dxg")  # NVIDIA's driver, AMD's, Windows' (WSL2)
_UNUSABLE = " is there, but torch finds no device that it can use"
_HIDDEN = ("", "-1")
_ASK = """import torch
print(int(torch.backends.mps.is_available() or torch.cuda.is_available() * torch.cuda.device_count()))"""
_PATIENCE = 120.0  # seconds; a cold import of torch from a slow disk takes long

Gpu = tuple[str, list[str]]  # its UUID, and the devices that it is: itself, or its MIG instances


class _OldDriverError(Exception):
    """It lacks torch's CUDA; a compatibility package may bring that, so torch is asked."""


def make_slots(
    workers: int | None, accelerator: str, devices: int = 1
) -> tuple[list[Slot], int | None, str | None]:
    """Slots for ``workers`` tasks at once, the CPU threads of each (None: torch's default), a note or None.

    A slot has as many ``devices`` as its tasks need, or all that there are. By default as many slots as that
    makes; on a CPU as many as there are cores for, with one thread a core: two one-thread tasks are faster
    than one two-thread task.
    """
    visible, note = visible_devices(accelerator)
    if visible:
        starts = range(0, max(1, len(visible) - devices + 1), devices)
        shares = [_joined(visible[start : start + devices]) for start in starts]
        count = workers or len(shares)
        return [Slot(index, shares[index % len(shares)]) for index in range(count)], None, note
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = workers or max(1, cores // devices)
    note = note and f"{note}; training on the CPU"
    return [Slot(index, None) for index in range(count)], max(1, cores // count), note


def _joined(devices: Sequence[str | None]) -> str | None:
    return ",".join(its for its in devices if its is not None) or None


def visible_devices(accelerator: str) -> tuple[Sequence[str | None], str | None]:
    """What CUDA_VISIBLE_DEVICES becomes for each device (None: it stays), and a note for the user or None."""
    sign = None if accelerator == "cpu" else _sign()
    if sign is None:
        return [], None
    if sys.platform == "darwin":
        count = _ask_torch()
        return [None] * count, None if count else f"{sign}{_UNUSABLE}"
    build = _torch_build()
    if not (build["cuda"] or build["hip"]):
        return [], f"{sign} is there, but this torch ({build['__version__']}) is built for CPUs alone"
    # HIP heeds both, its own first. ROCR_VISIBLE_DEVICES is the driver's, and torch counts what it leaves.
    heeded = ["HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"] if build["hip"] else ["CUDA_VISIBLE_DEVICES"]
    variable = next((name for name in heeded if name in os.environ), "")
    named = [entry.strip() for entry in os.environ[variable].split(",")] if variable else None
    if named and named[0] in _HIDDEN:
        return [], None
    trouble = ""
    if build["cuda"]:
        try:
            return _choose(named, _nvidia_gpus(build["cuda"]))
        except (nvml.NVMLError, _OldDriverError) as error:
            trouble = f"; NVIDIA's driver says: {error}"
    count = _ask_torch()
    note = None if count else f"{sign}{_UNUSABLE}{trouble}"
    return (named or [str(index) for index in range(count)])[:count], note


def _sign() -> str | None:
    """A file that shows that there is a GPU; without one, no driver is asked."""
    if sys.platform == "darwin":
        return "Apple's GPU" if platform.machine() == "arm64" else None
    return next((str(path) for pattern in _SIGNS for path in sorted(_DEV.glob(pattern))), None)


def _torch_build() -> dict[str, Any]:
    """What torch was built for, read from the file that says so: its import takes seconds."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return runpy.run_path(str(Path(spec.origin).with_name("version.py")))


def _ask_torch() -> int:
    """How many devices it can use."""
    try:
        words = [sys.executable, "-P", "-c", _ASK]
        done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE)
        return int(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


def _nvidia_gpus(cuda: str) -> list[Gpu]:
    """As the driver numbers them. Raises NVMLError, _OldDriverError."""
    nvml.nvmlInit()
    try:
        if (its := nvml.nvmlSystemGetCudaDriverVersion() // 1000) < int(cuda.partition(".")[0]):
            raise _OldDriverError(f"CUDA {its}, and this torch needs {cuda}")
        gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [(nvml.nvmlDeviceGetUUID(gpu), _parts(gpu)) for gpu in gpus]
    finally:
        nvml.nvmlShutdown()


def _parts(gpu: Any) -> list[str]:
    try:
        cut_up = nvml.nvmlDeviceGetMigMode(gpu)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError_NotSupported:
        cut_up = False
    if not cut_up:
        return [nvml.nvmlDeviceGetUUID(gpu)]
    parts = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            parts.append(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)))
        except nvml.NVMLError_NotFound:
            continue
    return parts


def _choose(named: list[str] | None, gpus: list[Gpu]) -> tuple[list[str], str | None]:
    """The devices that CUDA_VISIBLE_DEVICES names; by CUDA's rule the first that is none ends the list."""
    if named is None:
        devices = [part for _, parts in gpus for part in parts]
        return devices, None if devices else "NVIDIA's driver is there, but shows no GPU or MIG instance"
    devices = []
    for entry in named:
        found = _find(entry, gpus)
        if not found or found[0] in devices:
            all_of_it = f"CUDA_VISIBLE_DEVICES={','.join(named)}"
            ignored = f"{all_of_it}: {entry} is no other device here; it and what follows are ignored"
            return devices, None if entry in _HIDDEN else ignored
        devices += found
    return devices, None


def _find(entry: str, gpus: list[Gpu]) -> list[str]:
    """The devices that an index or a UUID names. The beginning of a UUID will do if no other begins so."""
    if entry.isdecimal():
        uuid, parts = gpus[int(entry)] if int(entry) < len(gpus) else ("", [])
        return [entry] if parts == [uuid] else parts  # CUDA's order may be another than the driver's
    known = dict(gpus) | {part: [part] for _, parts in gpus for part in parts}
    fitting = [parts for name, parts in known.items() if entry and name.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else []
