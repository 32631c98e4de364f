"""Which devices a search uses: what NVIDIA's driver says is made up here, and so is /dev."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from redline.search.workers import devices
from redline.search.workers.devices import make_slots, visible_devices
from redline.search.workers.pool import Pool, Slot

SRC = Path(__file__).parents[2] / "src"
A, B, C = "GPU-aa11", "GPU-ab22", "GPU-cc33"
MIGS = ["MIG-m1", "MIG-m2"]


class FakeDriver:
    """pynvml's functions on GPUs by UUID, each with its MIG instances, or None where it has no such mode."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(
        self, gpus: dict[str, list[str] | None], cuda: int = 13000, error: int | None = None
    ) -> None:
        self.gpus, self.cuda, self.error = gpus, cuda, error

    def nvmlInit(self) -> None:  # noqa: N802
        if self.error is not None:
            raise pynvml.NVMLError(self.error)

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return list(self.gpus)[index]

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetMigMode(self, gpu: str) -> list[int]:  # noqa: N802
        if self.gpus[gpu] is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(bool(self.gpus[gpu])), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: str) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: str, index: int) -> str:  # noqa: N802
        parts = self.gpus[gpu] or []
        if index >= len(parts):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return parts[index]


class Machine:
    """What the module asks, made up: /dev, torch's build, its count of devices, and the driver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dev: Path) -> None:
        self.patch, self.dev, self.asked = monkeypatch, dev, 0
        monkeypatch.setattr(devices, "_DEV", dev)
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)

    def has(
        self, driver: FakeDriver | None = None, *, cuda: Any = None, hip: Any = None, count: int = 0
    ) -> None:
        (self.dev / ("kfd" if hip else "nvidia0")).touch()
        self.patch.setattr(
            devices, "_torch_build", lambda: {"cuda": cuda, "hip": hip, "__version__": "2.13.0+cpu"}
        )
        if driver is not None:
            self.patch.setattr(devices, "nvml", driver)

        def run(*_: Any, **__: Any) -> SimpleNamespace:
            self.asked += 1
            return SimpleNamespace(stdout=f"{count}\n")

        self.patch.setattr(devices.subprocess, "run", run)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("named", "found", "ignored"),
    [
        (None, [A, B, C], None),
        ("0,2", ["0", "2"], None),
        (" 2 , 0 ", ["2", "0"], None),
        (C, [C], None),
        ("GPU-c,GPU-ab", [C, B], None),
        (f"1,{C}", ["1", C], None),
        ("", [], None),
        ("-1", [], None),
        ("0,-1,1", ["0"], None),
        ("0,", ["0"], None),
        ("0,3,1", ["0"], "3"),
        ("7", [], "7"),
        ("GPU-a", [], "GPU-a"),  # fits two
        ("0,GPU-zz,1", ["0"], "GPU-zz"),
        ("0,0", ["0"], "0"),
        ("cuda:0", [], "cuda:0"),
    ],
)
def test_cuda_visible_devices(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    named: str | None,
    found: list[str],
    ignored: str | None,
) -> None:
    machine.has(FakeDriver({A: None, B: [], C: None}), cuda="13.0")
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    names, note = visible_devices("auto")
    assert names == found
    assert machine.asked == 0
    if ignored is None:
        assert note is None
    else:
        says = f"{ignored} is no other device here; it and what follows are ignored"
        assert note == f"CUDA_VISIBLE_DEVICES={named}: {says}"


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, [*MIGS, B]),
        ("0", MIGS),
        ("1", ["1"]),
        (A, MIGS),
        ("MIG-m2", ["MIG-m2"]),
        ("MIG-m2,1", ["MIG-m2", "1"]),
    ],
)
def test_each_mig_instance_is_a_device(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, named: str | None, found: list[str]
) -> None:
    machine.has(FakeDriver({A: MIGS, B: None}), cuda="13.0")
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_devices("auto") == (found, None)


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (
            FakeDriver({}, error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED),
            "NVIDIA's driver says: Driver Not Loaded",
        ),
        (FakeDriver({A: None}, cuda=12040), "NVIDIA's driver says: CUDA 12, and this torch needs 13.0"),
        (None, "NVIDIA's driver says: NVML Shared Library Not Found"),  # the real one, where there is none
    ],
)
def test_where_the_driver_does_not_answer_torch_is_asked(
    machine: Machine, driver: FakeDriver | None, said: str
) -> None:
    if driver is None and Path("/proc/driver/nvidia").exists():
        pytest.skip("has NVIDIA's driver")
    machine.has(driver, cuda="13.0", count=2)
    assert visible_devices("auto") == (["0", "1"], None)
    machine.has(driver, cuda="13.0", count=0)
    names, note = visible_devices("auto")
    assert names == []
    assert note == f"{machine.dev}/nvidia0 is there, but torch finds no device that it can use; {said}"


def test_a_driver_that_shows_nothing_is_told(machine: Machine) -> None:
    machine.has(FakeDriver({}), cuda="13.0")
    assert visible_devices("auto") == ([], "NVIDIA's driver is there, but shows no GPU or MIG instance")


def test_a_build_of_torch_for_cpus_is_told_and_not_started(machine: Machine) -> None:
    machine.has(FakeDriver({A: None}))
    slots, _, note = make_slots(None, "auto")
    assert note is not None
    assert note.startswith(
        f"{machine.dev}/nvidia0 is there, but this torch (2.13.0+cpu) is built for CPUs alone"
    )
    assert note.endswith("; training on the CPU")
    assert {slot.gpu for slot in slots} == {None}
    assert machine.asked == 0
    assert make_slots(None, "cpu")[2] is None


@pytest.mark.parametrize(
    ("environment", "count", "found"),
    [
        ({}, 2, ["0", "1"]),
        ({"ROCR_VISIBLE_DEVICES": "2,3"}, 2, ["0", "1"]),
        ({"HIP_VISIBLE_DEVICES": "2,3"}, 2, ["2", "3"]),
        ({"HIP_VISIBLE_DEVICES": "2,9"}, 1, ["2"]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1, ["1"]),
        ({"HIP_VISIBLE_DEVICES": "3", "CUDA_VISIBLE_DEVICES": "1"}, 1, ["3"]),
        ({"HIP_VISIBLE_DEVICES": ""}, 0, []),
    ],
)
def test_rocm_is_torchs_to_tell(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    count: int,
    found: list[str],
) -> None:
    machine.has(hip="6.4", count=count)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert visible_devices("auto") == (found, None)


def test_apples_gpu_is_one_device_and_has_no_name(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has(count=1)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm64")
    slots, threads, note = make_slots(None, "auto")
    assert ([slot.gpu for slot in slots], threads, note) == ([None], None, None)
    assert len(make_slots(3, "auto")[0]) == 3
    machine.has(count=0)
    assert visible_devices("auto") == ([], "Apple's GPU is there, but torch finds no device that it can use")


def test_without_a_sign_of_a_gpu_nobody_is_asked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError

    for name in ("_torch_build", "_ask_torch", "_nvidia_gpus"):
        monkeypatch.setattr(devices, name, refuse)
    assert visible_devices("auto") == ([], None)


def test_torch_answers_from_a_child() -> None:
    """For real: here it is a build for CPUs, or one for the GPUs that there are."""
    code = """import sys, redline.search.workers.devices as devices
print(devices._ask_torch(), 'torch' in sys.modules)"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=True,
    )
    count, imported = done.stdout.split()
    assert count.isdecimal()
    assert imported == "False"
    assert {"cuda", "hip", "__version__"} <= set(devices._torch_build())


def test_a_task_sees_its_device_alone_on_rocm_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """HIP heeds HIP_VISIBLE_DEVICES before CUDA_VISIBLE_DEVICES."""
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
    ended = Pool([Slot(0, "3")]).call(lambda send: [os.environ[name] for name in names], ())
    assert ended.result == ["3", "3"]


def test_slots_share_the_devices_out(machine: Machine) -> None:
    machine.has(FakeDriver({A: None, B: None}), cuda="13.0")
    assert [slot.gpu for slot in make_slots(None, "auto")[0]] == [A, B]
    assert [slot.gpu for slot in make_slots(3, "gpu")[0]] == [A, B, A]
    assert {slot.gpu for slot in make_slots(2, "cpu")[0]} == {None}


def test_a_slot_has_as_many_devices_as_its_tasks_need(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has(FakeDriver({A: None, B: None, C: None}), cuda="13.0")
    for workers, count, expected in (
        (None, 2, [f"{A},{B}"]),
        (2, 2, [f"{A},{B}"] * 2),
        (None, 3, [f"{A},{B},{C}"]),
    ):
        assert [slot.gpu for slot in make_slots(workers, "auto", count)[0]] == expected
    # Too few: the task says so by itself.
    assert [slot.gpu for slot in make_slots(None, "auto", 4)[0]] == [f"{A},{B},{C}"]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for count, expected in ((2, (4, 2)), (8, (1, 8)), (9, (1, 8))):
        slots, threads, _ = make_slots(None, "cpu", count)
        assert (len(slots), threads) == expected


def test_slots_are_one_a_core_without_a_device(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for workers, count, threads in ((None, 8, 1), (2, 2, 4), (3, 3, 2), (20, 20, 1)):
        slots, its_threads, note = make_slots(workers, "auto")
        assert (len(slots), its_threads, note) == (count, threads, None)
        assert {slot.gpu for slot in slots} == {None}
