from redline.bounds import Count
from redline.metrics import of_layer
from redline.model import Transformer
from redline.monitor.histogram import Octaves, Power
from redline.monitor.sites import Linears, linears
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import effective_weight


class WeightHistogram(Tap):
    """Arrays ``weight/<site>/layer_<l>``, counts over the bins between ``weight/edges``, of the matrix that a
    linear multiplied with in this step.
    """

    def __init__(self, sites: Linears, low: Power, high: Power, values: Count) -> None:
        super().__init__()
        self.sites = list(sites)
        self.octaves = Octaves(low, high, values)

    def attach(self, model: Transformer) -> None:
        self.linears = dict(linears(model, self.sites))

    def before_update(self, step: Step) -> None:
        for place, linear in self.linears.items():
            self.arrays[of_layer("weight", *place)] = self.octaves.counts(effective_weight(linear))
        self.arrays["weight/edges"] = self.octaves.edges()
