"""From the words behind `-m` to a ladder and variants, with Hydra's own parser and the real conf/."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from hydra_plugins.max_lr._overrides import split
from redline.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
DEFAULT = [0.1, 0.2, 0.4]


@pytest.fixture(scope="module")
def loader() -> Iterator[Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield GlobalHydra.instance().config_loader()


def parsed(loader: Any, *arguments: str, **params: str) -> tuple[list[float], list[list[str]], list[str]]:
    return split(arguments, params, loader, "lr", DEFAULT, tolerance=0.5)


def test_what_a_file_sweeps_is_swept_unless_the_command_line_says_otherwise(loader: Any) -> None:
    assert parsed(loader, "seed=1", norm="qk,qkv") == (
        DEFAULT,
        [["norm=qk", "seed=1"], ["norm=qkv", "seed=1"]],
        [],
    )
    assert parsed(loader, "norm=baseline", norm="qk,qkv") == (DEFAULT, [["norm=baseline"]], [])
    assert parsed(loader, lr="1,2", optimizer="adamw") == ([1.0, 2.0], [["optimizer=adamw"]], [])


def test_without_lr_the_default_ladder_is_climbed(loader: Any) -> None:
    assert parsed(loader, "norm=qk") == (DEFAULT, [["norm=qk"]], [])


@pytest.mark.parametrize(
    ("lr", "ladder"),
    [
        ("lr=0.3,0.1,0.2", [0.1, 0.2, 0.3]),
        ("lr=0.1,1e-1,0.2", [0.1, 0.2]),
        ("lr=range(0.02,0.2,0.02)", [0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2]),
        ("lr=range(1,3)", [1.0, 2.0, 3.0]),
        ("lr=interval(1,4)", [1.0, 1.41421, 2.0, 2.82843, 4.0]),
        ("lr=[0.2,0.1]", [0.1, 0.2]),
        ("lr=choice(0.2,0.1)", [0.1, 0.2]),
    ],
)
def test_lr_is_the_ladder_and_no_variant(loader: Any, lr: str, ladder: list[float]) -> None:
    rungs, choices, _ = parsed(loader, "norm=qk", lr)
    if lr == "lr=interval(1,4)":
        assert (rungs[0], rungs[-1]) == (1.0, 4.0)
        assert len(rungs) == 5
    else:
        assert rungs == ladder
    assert choices == [["norm=qk"]]


def test_every_other_list_multiplies_the_variants(loader: Any) -> None:
    _, choices, varied = parsed(loader, "norm=qk,qkv", "model.num_layers=2,3", "seed=7", "lr=1,2")
    assert choices == [
        ["norm=qk", "model.num_layers=2", "seed=7"],
        ["norm=qk", "model.num_layers=3", "seed=7"],
        ["norm=qkv", "model.num_layers=2", "seed=7"],
        ["norm=qkv", "model.num_layers=3", "seed=7"],
    ]
    assert varied == ["model.num_layers"]


def test_a_range_of_another_key_multiplies_too(loader: Any) -> None:
    _, choices, _ = parsed(loader, "norm=qk", "model.num_layers=range(2,5)")
    assert [chosen[1] for chosen in choices] == [f"model.num_layers={count}" for count in (2, 3, 4)]


def test_a_glob_names_every_variant_that_matches(loader: Any) -> None:
    _, choices, _ = parsed(loader, "norm=glob(qk*)")
    assert sorted(choices) == [["norm=qk"], ["norm=qk_cap"], ["norm=qk_clip"], ["norm=qk_fc"], ["norm=qkv"]]


def test_a_variant_named_twice_is_one(loader: Any) -> None:
    assert parsed(loader, "norm=qk,qk")[1] == [["norm=qk"]]


@pytest.mark.parametrize(
    "lr", ["lr=0.1", "lr=abc", "lr=0.1,abc", "lr=0.1,-1", "lr=0,0.1", "lr=range(0.001,0.08)", "lr=[0.1]"]
)
def test_an_lr_that_is_no_ladder_is_refused(loader: Any, lr: str) -> None:
    with pytest.raises(UserError, match=r"^lr=.*allowed|^lr=.*default is 1"):
        parsed(loader, "norm=qk", lr)


def test_another_key_is_the_ladder_and_the_rate_a_variant(loader: Any) -> None:
    words = ["norm=qk", "optimizer.weight_decay=0.3,0.1,0.2", "lr=0.02,0.03"]
    key = "optimizer.weight_decay"
    ladder, choices, varied = split(words, {}, loader, key, DEFAULT, tolerance=0.5)
    assert ladder == [0.1, 0.2, 0.3]
    assert choices == [["norm=qk", "lr=0.02"], ["norm=qk", "lr=0.03"]]
    assert varied == ["lr"]


def test_another_key_may_be_given_an_interval(loader: Any) -> None:
    words = ["norm=qk", "optimizer.weight_decay=interval(1,4)"]
    ladder, _, _ = split(words, {}, loader, "optimizer.weight_decay", DEFAULT, tolerance=0.5)
    assert (ladder[0], ladder[-1], len(ladder)) == (1.0, 4.0, 5)
    with pytest.raises(UserError, match=r"^lr=interval.*an interval is for optimizer\.weight_decay"):
        split(["lr=interval(1,4)"], {}, loader, "optimizer.weight_decay", DEFAULT, tolerance=0.5)


def test_another_key_has_no_default_ladder(loader: Any) -> None:
    with pytest.raises(UserError, match=r"^optimizer\.weight_decay: has no ladder; allowed with hydra"):
        split(["norm=qk"], {}, loader, "optimizer.weight_decay", DEFAULT, tolerance=0.5)


@pytest.mark.parametrize("words", ["0.1", "-1,1", "range(0.001,0.08)", "[0.1]"])
def test_what_is_no_ladder_of_another_key_is_refused_by_its_name(loader: Any, words: str) -> None:
    with pytest.raises(UserError, match=r"^optimizer\.weight_decay=.*(allowed|default is 1)"):
        split(
            [f"optimizer.weight_decay={words}"], {}, loader, "optimizer.weight_decay", DEFAULT, tolerance=0.5
        )


def test_an_interval_of_another_key_is_refused(loader: Any) -> None:
    with pytest.raises(UserError, match=r"^model.dropout=interval.*allowed"):
        parsed(loader, "model.dropout=interval(0,0.5)")
