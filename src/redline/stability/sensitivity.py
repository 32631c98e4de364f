"""How much a variant's final loss depends on its learning rate."""

from collections.abc import Sequence


def lr_sensitivity(losses: Sequence[float], initial_loss: float) -> float:
    """Mean over a ladder of min(loss, loss at initialisation) minus the best loss, in nats.

    A run without a final loss (it diverged) is passed as infinity or NaN and counts as the loss at
    initialisation. Source: Wortsman et al. 2023 (arXiv 2309.14322), section 2.
    """
    if not losses:
        raise ValueError("lr_sensitivity needs at least one loss")
    capped = [loss if loss < initial_loss else initial_loss for loss in losses]
    return sum(capped) / len(capped) - min(capped)
