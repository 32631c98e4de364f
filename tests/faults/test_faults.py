"""A search struck at random, from a fixed seed: it ends as if nothing had. `make faults` does more."""

from pathlib import Path

import pytest
from rounds import Rounds, Search
from small_disk import NotPermitted, small_disk
from subject import quick

_PAUSE = (0.2, 1.5)  # seconds between two faults


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """Of both tests, which compare with one undisturbed search."""
    return Rounds(tmp_path_factory.mktemp("rounds"), seed=1)


def test_a_search_struck_by_every_kind_of_fault_ends_as_if_undisturbed(rounds: Rounds) -> None:
    search = Search("sqlite", quick(), 11, _PAUSE, gated=True)
    struck, wrong = rounds.play(0, search)
    assert not wrong, [*map(str, struck), *wrong]
    assert sorted(its.fault for its in struck) == sorted(search.faults())


def test_a_search_whose_disk_is_full_for_a_while_ends_as_if_it_never_was(
    rounds: Rounds, tmp_path: Path
) -> None:
    try:
        with small_disk(tmp_path / "probe", 1):
            pass
    except NotPermitted as reason:
        pytest.skip(str(reason))
    search = Search("sqlite", quick(), 4, _PAUSE, gated=True, megabytes=8, only="disk_full")
    struck, wrong = rounds.play(1, search)
    assert not wrong, [*map(str, struck), *wrong]
    assert len(struck) == 4
