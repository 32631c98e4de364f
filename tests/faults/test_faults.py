"""A search struck at random, from a fixed seed: it ends as if nothing had. `make faults` does more."""

from pathlib import Path

import pytest
from rounds import Rounds, Search
from small_disk import NotPermitted, small_disk
from subject import quick

_PAUSE = (0.2, 1.5)  # seconds between two faults


def test_a_search_struck_by_every_kind_of_fault_ends_as_if_undisturbed(tmp_path: Path) -> None:
    struck, wrong = Rounds(tmp_path, seed=1).play(0, Search("sqlite", quick(), 11, _PAUSE))
    assert not wrong, [*map(str, struck), *wrong]
    assert len({its.fault for its in struck}) > 5, "it ended before it was struck"


def test_a_search_whose_disk_is_full_for_a_while_ends_as_if_it_never_was(tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "probe", 1):
            pass
    except NotPermitted as reason:
        pytest.skip(str(reason))
    search = Search("sqlite", quick(), 4, _PAUSE, megabytes=8, only="disk_full")
    struck, wrong = Rounds(tmp_path, seed=1).play(0, search)
    assert not wrong, [*map(str, struck), *wrong]
    assert struck
