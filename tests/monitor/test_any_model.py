"""The tap that looks at every Linear of any model, against hooks written here."""

import pytest
import torch
from torch import nn

from redline.monitor import LinearNorm
from redline.monitor.tap import Step

NAMES = {
    "encoder.layers.0.fc": "norm/encoder_layers_fc/layer_00",
    "encoder.layers.1.fc": "norm/encoder_layers_fc/layer_01",
    "head": "norm/head/layer_00",
    "a.3.b": "norm/a_3_b/layer_00",  # this one and the next would have one name
    "a.b.3": "norm/a_b_3/layer_00",
}


class Tree(nn.Module):
    """Linears at these paths, called one after the other; the first twice."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            parent, _, last = name.rpartition(".")
            place: nn.Module = self
            for part in filter(None, parent.split(".")):
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            place.add_module(last, nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.get_submodule("encoder.layers.0.fc")(x)
        for name in NAMES:
            x = self.get_submodule(name)(x)
        return x.sum()


def test_it_is_the_mean_of_the_outputs_norms() -> None:
    model, tap, seen = Tree(), LinearNorm(), {}
    tap.attach(model)
    for name in NAMES:
        model.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: out.detach().square().sum(-1).sqrt().mean()})
        )
    step = Step(0, 0, torch.optim.SGD(model.parameters()))
    tap.active = True
    model(torch.randn(3, 5, 4))
    tap.after_update(step)
    assert tap.values.keys() == {*NAMES.values()}
    for name, metric in NAMES.items():
        assert float(tap.values[metric]) == pytest.approx(float(seen[name]), rel=1e-6)
    tap.values.clear()
    tap.active = False
    model(torch.randn(2, 4))
    tap.after_update(step)
    assert not tap.values
