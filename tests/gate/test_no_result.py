"""A file that is no result of a search is told as such, by file and key; it never passes as "not worse"."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from gate_helpers import entry, result

from redline.errors import UserError
from redline.search.result import VERSION, SearchResult, VariantResult

GOOD: dict[str, Any] = json.loads(json.dumps({"version": VERSION, **asdict(result(qk=entry(1, {"0": 4.0})))}))
ONE: dict[str, Any] = GOOD["variants"]["qk"]


def of_variant(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "variants": {"qk": {**ONE, **changes}}}


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({**GOOD, "variants": {}}, "variants"),
        ({**GOOD, "variants": []}, "variants"),
        ({**GOOD, "variants": None}, "variants"),
        ({**GOOD, "version": VERSION + 7}, "version="),
        ({**GOOD, "version": "one"}, "version='one'"),
        ({**GOOD, "ladder": [0.1, float("nan")]}, "ladder.1"),
        ({**GOOD, "ladder": [0.1, float("inf")]}, "ladder.1"),
        ({**GOOD, "ladder": [-0.1]}, "ladder.0"),
        ({**GOOD, "seeds": True}, "seeds"),
        ({**GOOD, "search": 3}, "search"),
        (of_variant(val_loss="abc"), "variants.qk.val_loss"),
        (of_variant(val_loss="4.0"), "variants.qk.val_loss"),
        (of_variant(val_loss=float("nan")), "variants.qk.val_loss"),
        (of_variant(val_loss=[4.0]), "variants.qk.val_loss"),
        (of_variant(best_val_loss=float("-inf")), "variants.qk.best_val_loss"),
        (of_variant(val_losses={"0": float("nan")}), "variants.qk.val_losses.0"),
        (of_variant(max_stable_lr_90=[0.1]), "variants.qk.max_stable_lr_90"),
        (of_variant(max_stable_lr=float("inf")), "variants.qk.max_stable_lr"),
        (of_variant(grid_steps=-1), "variants.qk.grid_steps"),
        (of_variant(censored="no"), "variants.qk.censored"),
        ({key: its for key, its in GOOD.items() if key != "variants"}, "variants"),
        ("[" * 5000 + "]" * 5000, "not a file of JSON"),
        ("NaN", "not the result of a search"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, content: Any, key: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError) as refused:
        SearchResult.read(path, "NEW")
    said = str(refused.value)
    assert said.startswith(f"NEW={path}: ")
    assert key in said
    assert "\n" not in said


def test_what_is_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(GOOD))
    assert SearchResult.read(path).variants["qk"] == result(qk=entry(1, {"0": 4.0})).variants["qk"]
    assert VariantResult.from_dict(ONE) == SearchResult.read(path).variants["qk"]
