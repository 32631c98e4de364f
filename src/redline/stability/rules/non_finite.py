import math

from redline.stability.rules.base import OnlineRule


class NonFinite(OnlineRule):
    """Loss or gradient norm is NaN or infinite, once."""

    def broken_by(self, step: int, loss: float, grad_norm: float) -> bool:
        return not (math.isfinite(loss) and math.isfinite(grad_norm))
