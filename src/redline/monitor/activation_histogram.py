from torch import Tensor

from redline.bounds import Count
from redline.metrics import of_layer
from redline.model import MappedModel
from redline.monitor.histogram import Octaves, Power
from redline.monitor.sites import Activations, Place, on_activations
from redline.monitor.tap import Step, Tap


class ActivationHistogram(Tap):
    """Arrays ``activation/<site>/layer_<l>``, counts over the bins between ``activation/edges``."""

    across = "sum"

    def __init__(self, sites: Activations, low: Power, high: Power, values: Count) -> None:
        super().__init__()
        self.sites = list(sites)
        self.octaves = Octaves(low, high, values)

    def attach(self, model: MappedModel) -> None:
        on_activations(self, model, self.sites, self._see)

    def _see(self, place: Place, x_BTC: Tensor) -> None:
        self.arrays[of_layer("activation", *place)] = self.octaves.counts(x_BTC)

    def after_update(self, step: Step) -> None:
        self.arrays["activation/edges"] = self.octaves.edges()
