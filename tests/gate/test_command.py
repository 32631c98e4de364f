"""`python -m redline.gate` as a team's CI calls it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from gate_helpers import LADDER, entry, posterior, result

from redline.command_line import user_errors
from redline.gate import __main__ as gate
from redline.search.result import VERSION, SearchResult
from result_helpers import OLD_VARIANT

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """``ask(*arguments)``: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def one(*arguments):
        monkeypatch.setattr(sys, "argv", ["gate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended, user_errors():
            sys.exit(gate.main())
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return one


def content(its):
    """What the file of a result holds."""
    return json.loads(json.dumps({"version": VERSION, **asdict(its)}))


def written(path, its):
    """``its``: a result, or whatever else JSON can be made of."""
    if isinstance(its, SearchResult):
        its = content(its)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(its))
    return path


GOOD = result(qk=entry(1, {"0": 4.0, "1": 4.1}), qkv=entry(2, {"0": 4.0}))
BAD = result(qk=entry(1, {"0": 4.0, "1": 4.1}), qkv=entry(0, {"0": 4.0}))


def test_a_result_passes_against_itself(ask, tmp_path):
    status, out, err = ask(written(tmp_path / "a.json", GOOD), written(tmp_path / "b.json", GOOD))
    assert (status, err) == (0, "")
    assert "nothing got worse" in out
    assert "0.25 → 0.25" in out


def test_what_got_worse_is_named(ask, tmp_path):
    status, out, _ = ask(written(tmp_path / "a.json", GOOD), written(tmp_path / "b.json", BAD))
    assert status == 1
    assert "worse: qkv\n" in out
    row = next(line for line in out.splitlines() if line.split()[:1] == ["qkv"])
    assert "0.5 → 0.125" in row
    assert "WORSE" in row


def test_tolerance_and_confidence_are_the_callers(ask, tmp_path):
    near = result(qk=entry(1, {"0": 4.0}))
    far = result(qk=entry(1, {"0": 4.3}))
    paths = written(tmp_path / "a.json", near), written(tmp_path / "b.json", far)
    assert ask(*paths)[0] == 1
    assert ask(*paths, "--tolerance=0.4")[0] == 0
    before = result(qk=entry(1, {"0": 4.0, "1": 4.1, "2": 4.2}))
    after = result(qk=entry(1, {"0": 4.0, "1": 4.2, "2": 4.4}))
    paths = written(tmp_path / "c.json", before), written(tmp_path / "d.json", after)
    assert ask(*paths, "--confidence=0.5")[0] == 1
    assert ask(*paths, "--confidence=0.9999")[0] == 0


def test_without_new_the_newest_search_is_compared_but_not_the_baseline_with_itself(ask, tmp_path):
    searches = tmp_path / "mlruns" / "searches"
    older = written(searches / "a" / "result.json", BAD)
    newest = written(searches / "b" / "result.json", GOOD)
    os.utime(older, (1, 1))
    assert ask(written(tmp_path / "stored.json", GOOD))[0] == 0
    os.utime(newest, (0, 0))
    assert ask(tmp_path / "stored.json")[0] == 1
    assert ask(older)[0] == 0  # `newest` remains


@pytest.mark.parametrize(
    "gone", [(), ("max_stable_lr_90", "val_losses", "first_diverged_step", "short_runs")]
)
def test_an_old_result_is_compared_by_its_interval_and_named_as_old(ask, tmp_path, gone):
    """Before there were intervals, a result had the bracket's two ends."""
    entries = {"qk": {key: its for key, its in OLD_VARIANT.items() if key not in gone}}
    old = {"search": "s", "ladder": LADDER, "seeds": 3, "variants": entries}
    if not gone:
        old |= {"version": 1, "key": "lr", "label": "LR"}
    stored = written(tmp_path / "old.json", old)
    same = written(tmp_path / "same.json", result(qk=entry(1, {"0": 4.0, "1": 4.1})))
    lower = entry(0, {"0": 4.0}, useful_quantiles=posterior(0.1, 0.1))
    for pair, status in (((stored, same), 0), ((same, stored), 0), ((stored, stored), 0)):
        assert ask(*pair)[0] == status
    status, out, _ = ask(stored, written(tmp_path / "lower.json", result(qk=lower)))
    assert status == 1
    assert f"{stored}: old form (version 1)" in out
    assert "not compared" in out


def test_another_recipe_is_told(ask, tmp_path):
    before, after = (replace(GOOD, recipe={"weight_decay": decay, "clip": 1.0}) for decay in (0.1, 0.01))
    paths = written(tmp_path / "a.json", before), written(tmp_path / "b.json", after)
    status, out, _ = ask(*paths)
    assert status == 0
    assert "another recipe than the baseline's: weight_decay 0.1 → 0.01" in out
    assert "clip" not in out


@pytest.mark.parametrize(
    ("baseline", "new", "said"),
    [
        (None, GOOD, "BASELINE="),
        (GOOD, None, "NEW="),
        (GOOD, [], "NEW="),
        (GOOD, {"ladder": LADDER}, "NEW="),
        ({**content(GOOD), "variants": {"qk": {}}}, GOOD, "BASELINE="),
        ({**content(GOOD), "ladder": []}, GOOD, "BASELINE="),
        ({**content(GOOD), "ladder": ["0.1"]}, GOOD, "BASELINE="),
        ({**content(GOOD), "seeds": 0}, GOOD, "BASELINE="),
        ({**content(GOOD), "seeds": None}, GOOD, "BASELINE="),
        (
            {**content(GOOD), "variants": {"qk": content(GOOD)["variants"]["qk"] | {"censored": "no"}}},
            GOOD,
            "BASE",
        ),
        (GOOD, replace(GOOD, ladder=(0.1, 0.2)), "ladder=[0.1, 0.2]"),
        (
            GOOD,
            replace(GOOD, key="weight_decay"),
            "hydra.sweeper.key=weight_decay: allowed: the baseline's, lr",
        ),
        (GOOD, replace(GOOD, lost_share=0.5), "hydra.sweeper.lost_share=0.5: allowed: the baseline's, 0.25"),
        (GOOD, replace(GOOD, variants={"qk": GOOD.variants["qk"]}), "qkv"),
        (GOOD, result(qk=entry(1, grid_steps=9), qkv=entry(1)), "trainer.max_steps"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_status_two(ask, tmp_path, baseline, new, said):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, its in zip(paths, (baseline, new), strict=True):
        if its is not None:
            written(path, its)
    status, out, err = ask(*paths)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_file_that_is_no_text_is_the_users_mistake(ask, tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\x00{")
    assert ask(tmp_path / "a.json", tmp_path / "a.json")[0] == 2
    assert ask(tmp_path, tmp_path)[0] == 2


def test_no_search_to_compare_with_is_the_users_mistake(ask, tmp_path):
    status, _, err = ask(written(tmp_path / "a.json", GOOD))
    assert (status, "NEW" in err) == (2, True)


@pytest.mark.parametrize("option", ["--tolerance=-1", "--tolerance=nan", "--confidence=1", "--confidence=0"])
def test_options_have_limits(ask, tmp_path, option):
    path = written(tmp_path / "a.json", GOOD)
    status, _, err = ask(path, path, option)
    assert (status, option.split("=")[0] in err) == (2, True)


def test_the_documented_command_ends_with_that_status(tmp_path):
    paths = written(tmp_path / "a.json", GOOD), written(tmp_path / "b.json", BAD)
    done = subprocess.run(
        [sys.executable, "-m", "redline.gate", *paths],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "worse: qkv" in done.stdout
