import pytest
import torch

from redline.errors import UserError
from redline.training import precision
from redline.training.build import precision_of
from redline.training.check import check
from redline.training.precision import check_precision, fastest_precision

CPU = torch.device("cpu")


@pytest.fixture
def without_bf16(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)


@pytest.fixture
def with_bf16(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)


@pytest.mark.usefixtures("without_bf16")
def test_bf16_is_refused_where_the_device_has_none(run_cfg):
    with pytest.raises(UserError, match=r"^trainer\.precision=bf16-mixed: .*allowed: fp32, auto"):
        check_precision("bf16-mixed", CPU, allow_emulated=False)
    with pytest.raises(UserError, match=r"trainer\.precision=bf16-mixed"):
        check(run_cfg("trainer.precision=bf16-mixed"))
    for asked in ("fp32", "auto"):
        check_precision(asked, CPU, allow_emulated=False)
    check_precision("bf16-mixed", CPU, allow_emulated=True)
    check(run_cfg("trainer.precision=bf16-mixed", "trainer.allow_emulated=true"))


@pytest.mark.usefixtures("with_bf16")
def test_bf16_is_accepted_where_the_device_has_it(run_cfg):
    check_precision("bf16-mixed", CPU, allow_emulated=False)
    assert precision_of(run_cfg("trainer.precision=bf16-mixed")) == "bf16-mixed"
    assert precision_of(run_cfg("trainer.precision=fp32")) == "fp32"


@pytest.mark.usefixtures("without_bf16")
def test_auto_is_fp32_where_there_is_no_bf16(run_cfg):
    assert precision_of(run_cfg("trainer.precision=auto")) == "fp32"


class Slow(torch.nn.Module):
    """Takes its time on a clock of its own."""

    def __init__(self, clock, fp32, bf16):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))
        self.clock, self.seconds = clock, {False: fp32, True: bf16}

    def forward(self, tokens_BT):
        self.clock[0] += self.seconds[torch.is_autocast_enabled("cpu")]
        return self.weight.expand(*tokens_BT.shape, 4)


@pytest.mark.parametrize(
    ("fp32", "bf16", "faster"), [(1.0, 0.5, "bf16-mixed"), (1.0, 0.95, "fp32"), (1, 2, "fp32")]
)
@pytest.mark.usefixtures("with_bf16")
def test_auto_takes_bf16_only_where_it_wins_clearly(monkeypatch, fp32, bf16, faster):
    clock = [0.0]
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    model = Slow(clock, fp32, bf16)
    assert fastest_precision(model, CPU, batch_size=2, sequence_length=3) == faster
    assert model.weight.grad is None
