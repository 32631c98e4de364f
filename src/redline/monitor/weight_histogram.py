from redline.bounds import Count
from redline.metrics import of_layer
from redline.model import MappedModel
from redline.monitor.histogram import Octaves, Power
from redline.monitor.sites import Linears
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import Matrices, effective_weight
from redline.over_ranks import whole


class WeightHistogram(Tap):
    """Arrays ``weight/<site>/layer_<l>``, counts over the bins between ``weight/edges``, of the matrix that a
    linear multiplied with in this step.
    """

    def __init__(self, sites: Linears, low: Power, high: Power, values: Count) -> None:
        super().__init__()
        self.sites = list(sites)
        self.octaves = Octaves(low, high, values)

    def attach(self, model: MappedModel) -> None:
        self.matrices = Matrices(model, self.sites)

    def before_update(self, step: Step) -> None:
        for place, its in self.matrices.linears.items():
            first, *others = [self.octaves.counts(whole(effective_weight(linear))) for linear in its]
            self.arrays[of_layer("weight", *place)] = sum(others, first)
        self.arrays["weight/edges"] = self.octaves.edges()
