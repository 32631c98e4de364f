"""How large the gradients of the weights are."""

from redline import over_ranks
from redline.metrics import of_layer
from redline.model import MappedModel
from redline.monitor.sites import Linears
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import Matrices, root_of_squares, trained_weight


class WeightGradNorm(Tap):
    """``weight_grad_norm/<site>/layer_<l>``: the L2 norm, before clipping, of the gradient of what is trained
    there; under a reparametrization that is the matrix which the weight is made from.
    """

    def __init__(self, sites: Linears) -> None:
        super().__init__()
        self.sites = list(sites)

    def attach(self, model: MappedModel) -> None:
        its = Matrices(model, self.sites).linears
        self.weights = {place: [trained_weight(linear) for linear in its[place]] for place in its}

    def before_update(self, step: Step) -> None:
        found = {
            place: [weight.grad for weight in weights if weight.grad is not None]
            for place, weights in self.weights.items()
        }
        gradients = [gradient for its in found.values() for gradient in its]
        norms = iter(over_ranks.norms(gradients) if gradients else ())
        for place, its in found.items():
            if its:
                self.values[of_layer("weight_grad_norm", *place)] = root_of_squares(
                    [next(norms) for _ in its]
                )
