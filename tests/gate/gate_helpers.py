"""Results of searches, made by hand."""

from statistics import fmean
from typing import Any

from hypothesis import strategies as st

LADDER = [0.1, 0.2, 0.4, 0.8]
NATS = st.floats(2.0, 6.0)


def entry(rung: int | None, losses: dict[str, float] | None = None, **others: Any) -> dict[str, Any]:
    """A variant whose edge is that rung of the ladder: -1 none is stable, 3 all are, None open."""
    censored = {-1: "below", len(LADDER) - 1: "above"}.get(rung)
    edge = None if censored or rung is None else LADDER[rung]
    losses = losses or {}
    return {
        "max_stable_lr": edge,
        "max_stable_lr_90": None if edge is None else [edge * 0.9, edge * 2.2],
        "first_diverged_lr": None if rung in (None, len(LADDER) - 1) else LADDER[rung + 1],
        "censored": censored,
        "val_loss": fmean(losses.values()) if edge is not None and losses else None,
        "val_losses": losses if edge is not None else {},
        "best_lr": 0.1,
        "best_val_loss": min(losses.values(), default=None),
        "grid_steps": len(LADDER) * 3 * 100,
        **others,
    }


def result(**variants: dict[str, Any]) -> dict[str, Any]:
    return {"search": "s", "ladder": LADDER, "seeds": 3, "variants": variants}


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """Any entry that a search can write."""
    seeds = draw(st.lists(st.sampled_from("0123"), max_size=3, unique=True))
    rung = draw(st.none() | st.integers(-1, len(LADDER) - 1))
    its = entry(rung, {seed: draw(NATS) for seed in seeds})
    if its["max_stable_lr"] is not None:
        low = draw(st.floats(0.05, its["max_stable_lr"]))
        its["max_stable_lr_90"] = [low, draw(st.floats(its["max_stable_lr"], 1.6))]
    return its


RESULTS = st.dictionaries(st.sampled_from(["baseline", "qk", "qkv"]), entries(), min_size=1).map(
    lambda variants: result(**variants)
)
