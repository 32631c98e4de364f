"""What a person sees: MLflow's UI, Optuna's dashboard and the report, in a real browser, on a real search."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from chromium import Browser
from mlflow import MlflowClient
from mlflow.entities import Run
from pages import show_charts, show_comparison, show_report, show_study, show_trial

from command_helpers import Finished, completed, studies

Screenshot = Callable[[str], None]


@pytest.fixture(autouse=True)
def _a_fresh_console(browser: Browser) -> Iterator[None]:
    browser.errors(), browser.hosts()
    yield
    browser.open("about:blank")


@pytest.fixture(scope="session")
def search(finished: Finished) -> str:
    return finished.answer.name


@pytest.fixture(scope="session")
def runs(mlruns: Path, search: str) -> list[Run]:
    """Of the search's trials, in order of LR."""
    client = MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(search)
    assert experiment is not None
    found = [run for run in client.search_runs([experiment.experiment_id]) if "trial" in run.data.tags]
    return sorted(found, key=lambda run: float(run.data.tags["lr"]))


@pytest.fixture(scope="session")
def study(mlruns: Path, search: str) -> optuna.Study:
    """Of a variant, with a diverged trial."""
    return studies(mlruns.parent, search)["baseline"]


def test_mlflow_compares_two_runs_norm_curves(
    browser: Browser, mlflow_ui: str, runs: list[Run], screenshot: Screenshot
) -> None:
    two = [run for run in runs if run.data.tags["norm"] == "baseline"][:2]
    layers = sorted(key for key in two[0].data.metrics if re.fullmatch(r"norm/qkv/layer_\d\d", key))
    assert len(layers) == 2
    experiment = two[0].info.experiment_id
    show_comparison(browser, mlflow_ui, experiment, [run.info.run_id for run in two], layers)
    screenshot("mlflow-comparison")
    for run in two:
        for layer in layers:
            assert f"{run.info.run_name} ({layer})" in browser.text()
            assert f"{run.data.metrics[layer]}" in browser.text()  # the latest value
    assert browser.errors() == []
    assert browser.hosts() <= {"localhost", "data:"}


def test_the_page_that_a_search_names_shows_its_norm_curves_with_no_setting(
    browser: Browser, mlflow_ui: str, runs: list[Run], finished: Finished, screenshot: Screenshot
) -> None:
    page = re.search(r"curves: redline ui, then http://localhost:5000(\S+)", finished.answer.stdout)
    assert page is not None, finished.answer.stdout
    # This test's server is on another port.
    show_charts(browser, mlflow_ui + page[1], "norm/qkv")
    screenshot("mlflow-charts")
    browser.shows("norm/qkv", "layer_01", *{run.info.run_name for run in runs})
    assert browser.errors() == []
    assert browser.hosts() <= {"localhost", "data:"}


def test_a_search_is_one_click_away_where_mlflow_is_set_to_model_training(
    browser: Browser, mlflow_ui: str, search: str, runs: list[Run]
) -> None:
    browser.open(mlflow_ui)
    browser.click("//*[.='Model training']")
    browser.open(f"{mlflow_ui}/#/experiments")
    browser.click(f"//a[.='{search}']")
    browser.shows(*{run.info.run_name for run in runs})
    assert browser.errors() == []
    assert browser.hosts() <= {"localhost", "data:"}


def test_the_dashboard_names_the_largest_stable_trial_and_greys_the_others(
    browser: Browser, dashboard: str, study: optuna.Study, screenshot: Screenshot
) -> None:
    show_study(browser, dashboard, study._study_id)
    browser.shows("Infeasible")
    screenshot("dashboard-study")
    stable = [trial for trial in completed(study) if trial.user_attrs["verdict"] == "stable"]
    best = max(stable, key=lambda trial: trial.params["lr"])
    lines = [line for line in browser.text().splitlines() if line]
    place = lines.index(f"Best Trial (number={best.number})")
    assert lines[place + 1] == f"{best.params['lr']:g}"
    assert any(trial.intermediate_values for trial in completed(study))
    for trial in completed(study):
        # In the legend of the loss curves; a run that broke within its first steps has none.
        mark = " " if trial in stable else " (infeasible)"
        if trial.intermediate_values:
            assert f"trial #{trial.number}{mark}" in browser.text()
    assert browser.errors() == []
    assert browser.hosts() <= {"localhost", "data:"}


def test_a_trials_note_links_to_its_run_in_mlflow(
    browser: Browser,
    dashboard: str,
    mlflow_ui: str,
    study: optuna.Study,
    runs: list[Run],
    screenshot: Screenshot,
) -> None:
    trial = next(trial for trial in completed(study) if trial.user_attrs["verdict"] == "diverged")
    value, told = f"{trial.params['lr']:g}", trial.user_attrs
    run_id = next(
        run.info.run_id for run in runs if (run.data.tags["norm"], run.data.tags["lr"]) == ("baseline", value)
    )
    # Runs as short as these end before MLflow has them: the search's end has linked them.
    page = f"http://localhost:5000/#/runs/{run_id}"
    show_trial(browser, dashboard, study._study_id, trial.number)
    browser.shows(f"baseline, lr {value}, seed 0", f"diverged by {told['reason']}")
    screenshot("dashboard-trial")
    link = browser.find("//a[contains(., 'curves')]").get_attribute("href")
    assert link == page
    # This test's server is on another port.
    browser.open(link.replace("http://localhost:5000", mlflow_ui))
    browser.shows(f"baseline lr={value} seed=0", "norm/qkv/layer_00")
    assert browser.errors() == []


def test_the_report_opens_without_a_network(
    browser: Browser, mlruns: Path, search: str, tmp_path: Path, screenshot: Screenshot
) -> None:
    report = pytest.importorskip("redline.report", reason="this version has no report")
    found = report.load_search(
        search,
        storage=f"sqlite:///{mlruns / 'optuna.db'}",
        tracking_uri=f"sqlite:///{mlruns / 'mlflow.db'}",
    )
    show_report(browser, report.write_report(found, tmp_path))
    screenshot("report")
    browser.shows(search, "baseline", "qk", "largest useful")
    assert browser.run("return document.images.length") >= 4
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.errors() == []
    assert browser.hosts() <= {"file:", "data:"}
