"""What a search is expected to cost, before it is run."""

import subprocess
import sys
import time
from dataclasses import replace

from search_helpers import question

from redline.search.policy.cost import cost_text, expected_cost

LADDER = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def test_a_search_costs_less_than_the_grid() -> None:
    asked = question(LADDER, seeds=3)
    cost, hinted = expected_cost(asked), expected_cost(asked, hinted=True)
    assert cost.fewest <= cost.expected <= cost.most < cost.grid == 24
    assert hinted.expected <= cost.expected + 1


def test_a_finer_answer_costs_more_and_a_budget_limits_it() -> None:
    asked = question(LADDER, seeds=3, settled=1.0)
    rough, fine = (expected_cost(replace(asked, resolution=its)).expected for its in (3.0, 1.4))
    assert rough < fine
    assert expected_cost(replace(asked, budget=4)).most <= 5


def test_an_estimate_takes_a_moment_whatever_the_ladder() -> None:
    started = time.process_time()
    expected_cost(question([0.001 * 1.01**rung for rung in range(800)], seeds=3, extend=True))
    assert time.process_time() - started < 6  # on a loaded machine; 1 on a free one


def test_the_text_names_the_runs_and_why_a_search_ends() -> None:
    text = cost_text({"qk": 200, "qkv": None}, question(LADDER, budget=9), question(LADDER), 50)
    for words in (
        "ladder: 0.01, 0.02",
        "(8 rungs)",
        "seeds: 1, criterion: useful",
        "at most 1.5 times",
        "(resolution)",
        "(settled)",
        "9 full runs are spent (budget)",
        "qk: about ",
        " of 200 steps",
        " short runs of 50",
        "the grid: 8 runs",
        "together about",
    ):
        assert words in text


def test_an_estimate_needs_neither_torch_nor_optuna() -> None:
    words = "import redline.search.policy.cost, sys; print({'torch', 'optuna'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
