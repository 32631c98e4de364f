"""`redline.find_edge`: what it takes, what it refuses, and what becomes of what a function gives back."""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_helpers import python, trials

import redline
from redline.api import Function, divergence_rules
from redline.search.workers.tasks import run_trial
from redline.stability import Outcome


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not there yet. A pool changes the environment for its children, which is put back."""
    monkeypatch.setenv("PYTHONPATH", "")
    return tmp_path / "mlruns"


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Callable[..., Outcome]]:
    """A trial of a function, as a child process runs it, but in this one."""
    before = signal.getsignal(signal.SIGTERM)

    def run(
        function: Any,
        value: float = 1.0,
        divergence: dict[str, Any] | None = None,
        max_steps: int | None = None,
    ) -> Outcome:
        trial = redline.Trial(value, 0, tmp_path / "trial", redline.Facts(max_steps))
        rules = divergence_rules(divergence or {}, max_steps)
        return run_trial(Function(function), trial, rules, lambda message: None)

    yield run
    signal.signal(signal.SIGTERM, before)


def grows_above_1(trial: redline.Trial, every: int = 1) -> float:
    """From loss 5: up above value 1, down below it."""
    for step in range(0, 200, every):
        if trial.report(step, 5 + (trial.value - 1) * step / 100):
            break
    return 5 + (trial.value - 1)


def search(train: Any, home: Path, **more: Any) -> redline.SearchResult:
    told = {"name": "mine", "home": home, "workers": 1, "report_timeout": None, "extend": False, **more}
    return redline.find_edge(train, [0.5, 2.0], **told)


def test_a_searched_value_goes_by_the_users_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home.parent)
    result = search(grows_above_1, home, label="weight decay", key="weight_decay", report_timeout=300)
    assert result.variants["mine"].max_useful_rung == 0.5
    assert result.variants["mine"].first_diverged_lr == 2.0
    read = redline.SearchResult.read(home / "searches/mine/result.json")
    assert (read.key, read.label, read.ladder) == ("weight_decay", "weight decay", (0.5, 2.0))
    printed = capsys.readouterr().out
    assert "largest useful and largest stable weight decay" in printed
    assert "LR" not in printed
    assert "report: not done" not in printed
    page = (home / "searches/mine/report/report.html").read_text(encoding="utf-8")
    assert "max stable weight decay" in page
    assert {trial.params["weight_decay"] for trial in trials(home.parent, "mine/mine")} == {0.5, 2.0}


NOTEBOOK = """
import redline

rises = 1.0

def closure(above):
    def train(trial):
        for step in range(200):
            if trial.report(step, 5 + (trial.value - above) * rises * step / 100):
                break
        return 4.0
    return train

result = redline.find_edge(
    {
        "closure": closure(above=1.0),
        "lambda": lambda trial: math_of(trial),
        "wide": closure(above=10.0),
    },
    [0.5, 2.0, 20.0],
    name="notebook",
    workers=2,
    report_timeout=None,
)

print({name: its.max_useful_rung for name, its in result.variants.items()})
"""
MATH = "def math_of(trial): return float('nan') if trial.value > 1 else 4.0\n"


def test_functions_of_a_notebook_are_searched_several_at_once(tmp_path: Path) -> None:
    """Python's standard input is a `__main__` without a file, as a notebook's is; nothing guards it."""
    done = python("-", cwd=tmp_path, stdin=MATH + NOTEBOOK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("{'closure': 0.5, 'lambda': 0.5, 'wide': 2.0}\n")
    assert "ratio to closure" in done.stdout
    written = redline.SearchResult.read(tmp_path / "mlruns/searches/notebook/result.json")
    assert written.variants["lambda"].first_diverged_reason == "non_finite"
    assert written.variants["lambda"].first_diverged_step == 0  # it reports no steps


def no_edge(trial: redline.Trial) -> float:
    raise AssertionError("nothing is to be trained")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seeds": 0}, ["seeds=0", "from 1 to 1000"]),
        ({"seeds": 2.5}, ["seeds=2.5", "whole number"]),
        ({"seeds": True}, ["seeds=true", "whole number"]),
        ({"workers": "two"}, ["workers=two", "or null"]),
        ({"workers": 0}, ["workers=0", "from 1"]),
        ({"criterion": "most"}, ["criterion=most", "useful, stable, both"]),
        ({"resolution": 1}, ["resolution=1", "above 1"]),
        ({"lost_share": 1.0}, ["lost_share=1.0", "below 1"]),
        ({"prior": {"noise": 0.1}}, ["prior", "seed_shift"]),
        ({"worker": 2}, ["worker=2", "no such argument", "workers"]),
        ({"reference": "other"}, ["reference=other", "mine"]),
        ({"values": [0.1]}, ["values=[0.1]", "two or more"]),
        ({"values": [0.1, 0.1]}, ["values=[0.1]", "two or more"]),
        ({"values": []}, ["values=", "two or more"]),
        ({"values": 0.1}, ["values=0.1", "two numbers or more"]),
        ({"values": [0.1, "x"]}, ["values=x", "not a number"]),
        ({"values": [0.1, None]}, ["values=None", "not a number"]),
        ({"values": [-0.1, 0.1]}, ["values=-0.1", "above 0"]),
        ({"values": [0.1, math.inf]}, ["values=inf", "above 0"]),
        ({"name": ""}, ["name=", "a name"]),
        ({"label": 3}, ["label=3", "a name"]),
        ({"key": "seed"}, ["key=seed", "not seed"]),
        ({"key": "a/b"}, ["key=a/b", "letters"]),
        ({"max_steps": 0}, ["max_steps=0", "from 1"]),
        ({"short_run_steps": 5}, ["short_run_steps=5", "max_steps=None"]),
        ({"max_steps": 5, "short_run_steps": 5}, ["short_run_steps=5", "less than max_steps=5"]),
        ({"settings": {"model": object()}}, ["settings of mine", "JSON"]),
        ({"divergence": {"blowup": None}}, ["blowup", "unknown rule", "blow_up"]),
        ({"divergence": {"no_return": {"ris": 0.5}}}, ["no_return", "ris", "rise, patience, smoothing"]),
        ({"divergence": {"no_return": 0.5}}, ["no_return", "0.5", "None"]),
        ({"divergence": {"no_return": {"smoothing": 2}}}, ["smoothing=2", "below 1"]),
        ({"divergence": {"mine": {"_target_": "nowhere.Rule"}}}, ["mine", "nowhere"]),
        ({"train": 3}, ["train=3", "a function"]),
        ({"train": {}}, ["train={}", "a function"]),
        ({"train": Function}, ["train=", "a function"]),
        ({"train": {"a/b": no_edge}}, ["a/b", "without /"]),
        ({"train": (lambda lock: lambda trial: lock)(threading.Lock())}, ["train=mine", "pickle", "inside"]),
        ({"storage": "nonsense"}, ["storage=nonsense", "sqlite:///PATH"]),
    ],
    ids=lambda given: ",".join(given) if isinstance(given, dict) else "",
)
def test_mistakes_are_found_before_anything_is_written(
    wrong: dict[str, Any], words: list[str], home: Path
) -> None:
    told = {"train": no_edge, "values": [0.1, 1.0], "name": "mine", "home": home, "workers": 1, **wrong}
    with pytest.raises(redline.UserError) as caught:
        redline.find_edge(told.pop("train"), told.pop("values"), **told)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "hydra" not in message
    assert "\n" not in message
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("told", [(0, 1, 5), (1, 1, 5), (0.1, math.inf, 5), (0.1, 1, 1), (0.1, 1, 2.5)])
def test_geometric_refuses_what_has_no_steps(told: tuple[Any, ...]) -> None:
    with pytest.raises(redline.UserError, match="allowed: 0 < low < high"):
        redline.geometric(*told)


def test_geometric_has_its_ends_and_equal_steps() -> None:
    assert redline.geometric(1e-3, 1.0, 4) == (0.001, 0.01, 0.1, 1.0)


class Refusing(redline.Trainable):
    """Raises UserError in ``check``, or in ``run``; keeps count of its tries."""

    def __init__(self, tries: Path, where: str) -> None:
        self.tries, self.where = tries, where

    @property
    def max_steps(self) -> int:
        return 10

    def settings(self) -> dict[str, Any]:
        return {}

    def _refuse(self, where: str) -> None:
        if self.where == where:
            with self.tries.open("a") as file:
                file.write("tried\n")
            raise redline.UserError("depth=-1: allowed: 1 or more")

    def check(self) -> None:
        self._refuse("check")

    def run(self, trial: redline.Trial) -> redline.Score:
        self._refuse("run")
        return redline.Score(1.0)


@pytest.mark.parametrize("where", ["check", "run"])
def test_a_trainables_refusal_is_the_users_mistake_and_is_not_tried_again(
    where: str, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(redline.UserError, match=r"^depth=-1: allowed: 1 or more$"):
        search(Refusing(tmp_path / "tries", where), home)
    assert (tmp_path / "tries").read_text() == "tried\n"
    assert home.exists() == (where == "run")


def test_the_recipe_of_a_function_is_what_is_told_of_it() -> None:
    assert Function(no_edge, 70, {"depth": 3}).facts() == redline.Facts(70, recipe={"depth": 3})
    assert Function(no_edge).facts() == redline.Facts()


def test_a_name_that_other_arguments_use_is_refused(home: Path) -> None:
    first = search(grows_above_1, home)
    assert search(grows_above_1, home) == first
    for other in ({"seeds": 2}, {"settings": {"depth": 3}}, {"divergence": {"no_return": None}}):
        with pytest.raises(redline.UserError, match=r"^name=mine: was begun with other "):
            search(grows_above_1, home, **other)


def test_a_crash_is_tried_again_and_then_left_open(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def crashes_above_1(trial: redline.Trial) -> float | str:
        if trial.value > 1:
            with (tmp_path / "tries").open("a") as file:
                file.write("tried\n")
            raise LookupError("no such layer")
        return "soon"

    result = search(crashes_above_1, home, retries=1)
    assert not result.finished
    assert result.variants["mine"].open == (0.5, 2.0)
    assert result.variants["mine"].max_useful_rung is None
    assert (tmp_path / "tries").read_text() == "tried\n" * 2
    said = capsys.readouterr().out
    assert "crashed (LookupError: no such layer), tried again" in said
    assert "crashed (LookupError: no such layer), given up" in said
    assert "crashed (TypeError: the function returned 'soon'; allowed: a number" in said
    log = next(home.glob("searches/mine/trials/mine/lr=2-seed=0/trial.log")).read_text()
    assert log.count("LookupError: no such layer") == 2


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_has_diverged(judged: Callable[..., Outcome], score: float) -> None:
    assert judged(lambda trial: score).reason == "non_finite"
    rules = {"non_finite": None, "blow_up": None}
    assert judged(lambda trial: score, divergence=rules).reason == "non_finite"


@pytest.mark.parametrize("score", ["4.0", None, [4.0], {}])
def test_what_is_no_score_is_a_crash_that_says_so(judged: Callable[..., Outcome], score: Any) -> None:
    with pytest.raises(TypeError, match=r"the function returned .*; allowed: a number or a redline.Score"):
        judged(lambda trial: score)


def test_a_function_that_was_stopped_may_return_nothing(judged: Callable[..., Outcome]) -> None:
    def train(trial: redline.Trial) -> float | None:
        for step in range(300):
            if trial.report(step, 5.0 + step):
                return None
        return 1.0

    outcome = judged(train)
    assert (outcome.reason, outcome.step, outcome.val_loss) == ("blow_up", 50, None)


def test_a_function_may_return_a_score(judged: Callable[..., Outcome]) -> None:
    outcome = judged(lambda trial: redline.Score(3.0, floor=2.5, numbers={"accuracy": 0.5}, steps=7))
    assert (outcome.reason, outcome.numbers, outcome.optimizer_steps) == ("no_learning", {"accuracy": 0.5}, 7)


def test_a_step_that_goes_back_is_the_users_mistake(judged: Callable[..., Outcome]) -> None:
    def counts_within_an_epoch(trial: redline.Trial) -> float:
        for _ in range(2):
            for step in range(10):
                trial.report(step, 4.0)
        return 4.0

    with pytest.raises(redline.UserError, match=r"report\(0, …\): after step 9; allowed: steps that grow"):
        judged(counts_within_an_epoch)


@pytest.mark.parametrize(("every", "step"), [(1, 50), (10, 60), (100, 200)])
def test_patience_counts_steps_however_seldom_they_are_reported(
    judged: Callable[..., Outcome], every: int, step: int
) -> None:
    """Above the first loss from the second report on, for 50 steps."""

    def train(trial: redline.Trial) -> float:
        for at in range(0, 1000, every):
            if trial.report(at, 5.0 if at == 0 else 6.0):
                break
        return 6.0

    outcome = judged(train, divergence={"no_return": None})
    assert (outcome.reason, outcome.step) == ("blow_up", step)


def test_patience_is_a_share_of_the_length_that_is_told(judged: Callable[..., Outcome]) -> None:
    def train(trial: redline.Trial) -> float:
        for step in range(1000):
            if trial.report(step, 5.0 if step == 0 else 6.0):
                break
        return 6.0

    assert judged(train, max_steps=1000).step == 200
    assert judged(train, max_steps=1000, divergence={"blow_up": {"patience": 0.1}}).step == 100


def test_each_variant_is_judged_by_its_own_length(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("redline.api.run_search", lambda search, at_end: asked.append(search))
    search({"ours": Refusing(home, "nowhere"), "function": grows_above_1}, home, max_steps=70)
    lengths = [
        [its.rules[name]["max_steps"] for name in ("blow_up", "no_return")] for its in asked[0].variants
    ]
    assert lengths == [[10, 10], [70, 70]]


def rises_by(rise: float) -> Callable[[redline.Trial], float]:
    """Down to 3 within 100 steps, then up at step 200, for good."""

    def train(trial: redline.Trial) -> float:
        for step in range(400):
            if trial.report(step, max(9 - 6 * step / 100, 3) + rise * (step >= 200)):
                break
        return 3 + rise

    return train


@pytest.mark.parametrize(
    ("rise", "divergence", "reason"),
    [
        (0.7, {}, None),
        (1.3, {}, "no_return"),
        (0.7, {"no_return": {"rise": 0.5}}, "no_return"),
        (1.3, {"no_return": {"rise": 1.5}}, None),
        (1.3, {"no_return": None}, None),
    ],
)
def test_the_numbers_of_a_rule_can_be_changed(
    judged: Callable[..., Outcome], rise: float, divergence: dict[str, Any], reason: str | None
) -> None:
    assert judged(rises_by(rise), divergence=divergence).reason == reason


def worse_above_1(trial: redline.Trial) -> redline.Score:
    """Stable, but half of what can be learned is lost."""
    trial.report(0, 6.0)
    return redline.Score(4.0 if trial.value < 1 else 5.0)


def test_a_run_that_does_not_diverge_may_be_lost_all_the_same(home: Path) -> None:
    its = search(worse_above_1, home).variants["mine"]
    assert (its.max_useful_rung, its.censored) == (0.5, None)
    assert (its.stable_censored, its.first_diverged_lr) == ("above", None)
    more = search(worse_above_1, home, name="more", lost_share=0.6).variants["more"]
    assert (more.max_useful_rung, more.censored) == (None, "above")


def test_what_both_edges_are_is_written(home: Path) -> None:
    settings = {"optimizer": "none", "depth": 3}
    told = {"settings": settings, "claim": 1.5, "criterion": "both", "lost_share": 0.3}
    result = search({"one": grows_above_1, "two": worse_above_1}, home, **told)
    assert redline.SearchResult.read(home / "searches/mine/result.json") == result
    assert (result.claim, result.criterion, result.lost_share) == (1.5, "both", 0.3)
    assert result.recipe == settings
    assert result.variants["one"].ratio is None
    assert result.variants["two"].ratio is not None
    assert result.variants["two"].ratio.to == "one"


def test_the_search_and_the_api_are_imported_once_not_in_each_trial(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cost a second, whatever is trained."""
    preloaded: list[str] = []

    class NoPool(Exception):  # noqa: N818
        pass

    def pool(slots: Any, preload: list[str]) -> None:
        preloaded.extend(preload)
        raise NoPool

    monkeypatch.setattr("redline.search.engine.Pool", pool)
    with pytest.raises(NoPool):
        search(grows_above_1, home, preload=["torch"])
    assert preloaded == ["redline.search.workers.tasks", "redline.api", "torch"]
