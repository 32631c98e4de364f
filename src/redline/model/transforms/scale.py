from torch import Tensor, nn

from redline.bounds import Positive
from redline.model.norm_strategy import Site


class Scale(nn.Module):
    """Multiplication by a constant; at `score` attention folds it into its own scale."""

    def __init__(self, site: Site, factor: Positive) -> None:
        super().__init__()
        site.require("Scale", "BTD", "BHTK", "BHTT")
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor
