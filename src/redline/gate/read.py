"""Two `result.json` that can be compared, or one line on why they cannot."""

import json
from pathlib import Path
from typing import Any

from redline.errors import UserError

Result = dict[str, Any]
_SEARCHES = Path("mlruns/searches")
_KEYS = {
    "max_stable_lr",
    "first_diverged_lr",
    "censored",
    "val_loss",
    "best_lr",
    "best_val_loss",
    "grid_steps",
}


def read_result(path: Path, role: str) -> Result:
    """Raises UserError, naming ``role`` (the argument), for whatever is no `result.json`."""
    allowed = "allowed: the path of a search's result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{role}={path}: no such file; {allowed}") from None
    except (OSError, ValueError):
        raise UserError(f"{role}={path}: not a file of JSON; {allowed}") from None
    if not _is_result(result):
        raise UserError(f"{role}={path}: not the result of a search; {allowed}")
    return result


def newest_result(other_than: Path) -> Path:
    """The result that was written last, of the searches under `mlruns/`; never the baseline itself."""
    found = [path for path in _SEARCHES.glob("*/result.json") if path.resolve() != other_than.resolve()]
    if not found:
        raise UserError(f"NEW: no other result.json in {_SEARCHES}/; allowed: the path of one")
    return max(found, key=lambda path: path.stat().st_mtime)


def check_comparable(baseline: Result, new: Result) -> None:
    """Raises UserError where the two answer different questions."""
    if baseline["ladder"] != new["ladder"]:
        raise UserError(f"ladder={new['ladder']}: allowed: the baseline's, {baseline['ladder']}")
    for name, entry in baseline["variants"].items():
        if name not in new["variants"]:
            held = ", ".join(new["variants"]) or "none"
            raise UserError(f"variants: {name} of the baseline is not in the new result; it has: {held}")
        steps, wanted = _run_steps(new, new["variants"][name]), _run_steps(baseline, entry)
        if steps != wanted:
            raise UserError(f"trainer.max_steps={steps:g} of {name}: allowed: the baseline's, {wanted:g}")


def _run_steps(result: Result, entry: dict[str, Any]) -> float:
    return entry["grid_steps"] / (len(result["ladder"]) * result["seeds"])


def _is_result(result: Any) -> bool:
    return (
        isinstance(result, dict)
        and isinstance(result.get("ladder"), list)
        and len(result["ladder"]) > 0
        and isinstance(result.get("seeds"), int)
        and result["seeds"] > 0
        and isinstance(result.get("variants"), dict)
        and all(isinstance(its, dict) and its.keys() >= _KEYS for its in result["variants"].values())
    )
