"""`python -m redline.gate` as a team's CI calls it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from gate_helpers import LADDER, entry, result

from redline.command_line import user_errors
from redline.gate import __main__ as gate
from redline.search.result import SearchResult

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
    return json.loads(json.dumps(asdict(its)))


def written(path, its):
    """``its``: a result, or whatever else JSON can be made of."""
    if isinstance(its, SearchResult):
        its = content(its)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(its))
    return path


GOOD = result(qk=entry(1, {"0": 4.0, "1": 4.1}), qkv=entry(2, {"0": 4.0}))
BAD = result(qk=entry(1, {"0": 4.0, "1": 4.1}), qkv=entry(0, {"0": 4.0}, max_stable_lr_90=(0.05, 0.2)))


def test_a_result_passes_against_itself(ask, tmp_path):
    status, out, err = ask(written(tmp_path / "a.json", GOOD), written(tmp_path / "b.json", GOOD))
    assert (status, err) == (0, "")
    assert "nothing got worse" in out
    assert "0.2 → 0.2" in out


def test_what_got_worse_is_named(ask, tmp_path):
    status, out, _ = ask(written(tmp_path / "a.json", GOOD), written(tmp_path / "b.json", BAD))
    assert status == 1
    assert "worse: qkv\n" in out
    row = next(line for line in out.splitlines() if line.split()[:1] == ["qkv"])
    assert "0.4 → 0.1" in row
    assert "WORSE" in row


def test_tolerance_and_confidence_are_the_callers(ask, tmp_path):
    near = result(qk=entry(1, {"0": 4.0}))
    far = result(qk=entry(1, {"0": 4.2}))
    paths = written(tmp_path / "a.json", near), written(tmp_path / "b.json", far)
    assert ask(*paths)[0] == 1
    assert ask(*paths, "--tolerance=0.3")[0] == 0
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


def test_an_old_result_is_still_compared(ask, tmp_path):
    old = content(GOOD)
    del old["key"], old["label"]
    for its in old["variants"].values():
        del its["val_losses"], its["max_stable_lr_90"], its["first_diverged_step"], its["short_runs"]
        its["short_runs"] = 0
    paths = written(tmp_path / "old.json", old), written(tmp_path / "new.json", GOOD)
    assert ask(*paths)[0] == 0
    assert ask(*reversed(paths))[0] == 0


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
