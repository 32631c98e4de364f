"""Two `result.json` that can be compared, or one line on why they cannot."""

from collections.abc import Iterator
from pathlib import Path

from redline.errors import UserError
from redline.search.result import VERSION, SearchResult

_SEARCHES = Path("mlruns/searches")


def newest_result(other_than: Path) -> Path:
    """The result that was written last, of the searches under `mlruns/`; never the baseline itself."""
    found = [path for path in _SEARCHES.glob("*/result.json") if path.resolve() != other_than.resolve()]
    if not found:
        raise UserError(f"NEW: no other result.json in {_SEARCHES}/; allowed: the path of one")
    return max(found, key=lambda path: path.stat().st_mtime)


def check_comparable(baseline: SearchResult, new: SearchResult) -> None:
    """Raises UserError where the two answer different questions."""
    if baseline.key != new.key:
        raise UserError(f"hydra.sweeper.key={new.key}: allowed: the baseline's, {baseline.key}")
    if baseline.ladder != new.ladder:
        raise UserError(f"ladder={list(new.ladder)}: allowed: the baseline's, {list(baseline.ladder)}")
    if VERSION == baseline.version == new.version and baseline.lost_share != new.lost_share:
        share = f"hydra.sweeper.lost_share={new.lost_share:g}"
        raise UserError(f"{share}: allowed: the baseline's, {baseline.lost_share:g}")
    for name in baseline.variants:
        if name not in new.variants:
            held = ", ".join(new.variants) or "none"
            raise UserError(f"variants: {name} of the baseline is not in the new result; it has: {held}")
        steps, wanted = _run_steps(new, name), _run_steps(baseline, name)
        if steps != wanted:
            raise UserError(f"trainer.max_steps={steps:g} of {name}: allowed: the baseline's, {wanted:g}")


def _run_steps(result: SearchResult, variant: str) -> float:
    return result.variants[variant].grid_steps / (len(result.ladder) * result.seeds)


def remarks(path: Path, result: SearchResult, baseline: SearchResult) -> Iterator[str]:
    """What a reader of a comparison must know of a result beside its numbers."""
    if result.version < VERSION:
        yield (
            f"{path}: old form (version {result.version}): its edge is the rung below the first one that "
            "diverged, or that ended 0.25 nats above a smaller one"
        )
    for key in sorted({*result.recipe, *baseline.recipe}) if result.recipe and baseline.recipe else ():
        now, was = result.recipe.get(key), baseline.recipe.get(key)
        if now != was:
            yield f"{path}: another recipe than the baseline's: {key} {was} → {now}"
