"""The names of metrics: trackers write them, the report and the early warning read them."""

import re

TRAIN_LOSS, GRAD_NORM = "train/loss", "train/grad_norm"
LOSS_SCALE = "train/loss_scale"  # of fp16
VAL_LOSS, VAL_PERPLEXITY = "val/loss", "val/perplexity"
MAX_LOGIT = "attention/max_logit"
CLIPPED_HEADS = "attention/clipped_heads"  # so many in this step, over all layers
NORM, RMS = "norm", "rms"  # statistics of what a site puts out

# Of a whole run but its first steps, by the host's clock.
TOKENS_PER_SECOND, FLOPS_PER_SECOND = "speed/tokens_per_second", "speed/flops_per_second"
UTILISATION = "speed/utilisation"  # of the devices' peak, where that is known
# Shares of the time.
IN_DATA, IN_TAPS, IN_CHECKPOINTS = "speed/in_data", "speed/in_taps", "speed/in_checkpoints"

_OF_LAYER = re.compile(r"(\w+)/(\w+)/layer_(\d+)")


def loss_term(name: str) -> str:
    """One of several addends of the training loss."""
    return f"loss/{name}"


def intervention(name: str) -> str:
    """So many steps so far were changed by what can hide divergence, such as ``skip_outliers``."""
    return f"interventions/{name}"


def of_layer(statistic: str, site: str, layer: int) -> str:
    """As in ``norm/fc2/layer_03``."""
    return f"{statistic}/{site}/layer_{layer:02d}"


def layer_of(metric: str) -> tuple[str, str, int] | None:
    """The statistic, site and layer that `of_layer` put into a name; None for other names."""
    found = _OF_LAYER.fullmatch(metric)
    return None if found is None else (found[1], found[2], int(found[3]))
