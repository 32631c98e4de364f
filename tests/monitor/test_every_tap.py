"""What holds for every tap under conf/monitor/taps/, a new one too."""

import pytest
import torch
import yaml
from monitor_helpers import ROOT, TAPS, full_taps, small_model, step, twin
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device."""

    WAITING = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "item")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.WAITING:
            self.seen.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["baseline", "qk_cap", "soft_clip", "sigma_reparam"])
def test_all_taps_leave_loss_and_weights_as_they_are_to_the_bit(norm):
    watched = small_model(norm, dropout=0.1).train()
    alone = twin(watched)
    taps = list(full_taps().values())
    for tap in taps:
        tap.attach(watched)
    for number in range(2):
        torch.manual_seed(number)
        with_taps = step(watched, taps, number=number)
        torch.manual_seed(number)
        assert torch.equal(with_taps, step(alone, [], number=number))
        for (name, a), b in zip(watched.named_parameters(), alone.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(watched.state_dict().items(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("name", TAPS)
def test_a_tap_never_waits_for_the_device(name):
    model, tap = small_model("qk_cap"), full_taps()[name]
    tap.attach(model)
    with Waits() as unwatched:
        step(twin(model), [])
    with Waits() as watched:
        step(model, [tap])
        step(model, [tap], number=1)
    assert tap.values or tap.arrays
    assert len(watched.seen) == 2 * len(unwatched.seen), watched.seen


@pytest.mark.parametrize("name", TAPS)
def test_a_tap_that_is_not_active_sees_nothing(name):
    model, tap = small_model(), full_taps()[name]
    tap.attach(model)
    step(model, [])
    assert not tap.values
    assert not tap.arrays


@pytest.mark.parametrize("name", TAPS)
def test_values_are_scalars_and_none_requires_a_gradient(name):
    model, tap = small_model(), full_taps()[name]
    tap.attach(model)
    step(model, [tap])
    step(model, [tap], number=1)
    for value in [*tap.values.values(), *tap.arrays.values()]:
        assert not getattr(value, "requires_grad", False)
    assert all(isinstance(value, float) or value.ndim == 0 for value in tap.values.values())


def test_full_has_every_tap_but_those_of_any_model():
    assert sorted(full_taps()) == TAPS


def test_every_file_holds_the_tap_of_its_name():
    for path in (ROOT / "conf/monitor/taps").glob("*.yaml"):
        assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == [path.stem]


def test_a_compiled_model_is_one_graph_with_taps_active_and_idle():
    torch._dynamo.reset()
    model = small_model("qk_cap", num_layers=1).train()
    expected_model = twin(model)
    taps, expected = full_taps(), full_taps()
    for name in TAPS:
        taps[name].attach(model)
        expected[name].attach(expected_model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for number, active in enumerate([True, False, True]):
        loss = step(model, list(taps.values()) if active else [], forward=compiled, number=number)
        wanted = step(expected_model, list(expected.values()) if active else [], number=number)
        torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-5)
        if not active:
            assert not any(tap.values for tap in taps.values())
            continue
        for name, tap in taps.items():
            assert set(tap.values) == set(expected[name].values)
            assert set(tap.arrays) == set(expected[name].arrays)
            for metric, value in tap.values.items():
                if isinstance(value, torch.Tensor):
                    torch.testing.assert_close(value, expected[name].values[metric], rtol=1e-3, atol=1e-5)
            for one in (tap, expected[name]):
                one.values.clear()
                one.arrays.clear()
