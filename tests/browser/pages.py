"""Pages, each opened and waited for until it has drawn what one looks at it for."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from chromium import Browser

# How many of plotly's curves are drawn, with more to them than a point.
_CURVES = """
    const paths = [...document.querySelectorAll("path.js-line")];
    return paths.filter(path => path.getAttribute("d").includes("L")).length;
"""
_PICTURES = "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"


def show_charts(browser: Browser, page: str, metrics: str) -> None:
    """MLflow: a search's page, its charts for each metric whose name holds ``metrics``."""
    browser.open(page)
    browser.until("the charts", lambda: browser.run(_CURVES))
    _close_assistant(browser)
    browser.type("//input[@placeholder='Search metric charts']", metrics)
    browser.shows("layer_00")
    browser.until("curves", lambda: browser.run(_CURVES))


def show_comparison(
    browser: Browser, address: str, experiment: str, runs: Sequence[str], metrics: Sequence[str]
) -> None:
    """MLflow: two runs' curves in one picture, where a metric on the page behind `Compare` leads."""
    asked = {
        "runs": list(runs),
        "metric": metrics[0],
        "experiments": [experiment],
        "plot_metric_keys": list(metrics),
        "plot_layout": {},
        "deselected_curves": [],
        "last_linear_y_axis_range": [],
    }
    words = "&".join(f"{key}={quote(json.dumps(value))}" for key, value in asked.items())
    axes = "x_axis=step&y_axis_scale=linear&line_smoothness=1&show_point=false"
    browser.open(f"{address}/#/metric?{words}&{axes}")
    browser.until("curves", lambda: browser.run(_CURVES) >= len(runs) * len(metrics))
    _close_assistant(browser)


def show_study(browser: Browser, address: str, study: int) -> None:
    """Optuna's dashboard: a variant, with its best trial and its loss curves."""
    browser.open(f"{address}/dashboard/studies/{study}")
    browser.shows("Best Trial", "Timeline", "Intermediate values")
    browser.until("curves", lambda: browser.run(_CURVES))


def show_trial(browser: Browser, address: str, study: int, number: int) -> None:
    """Optuna's dashboard: a trial, with its note."""
    browser.open(f"{address}/dashboard/studies/{study}/trials?numbers={number}")
    browser.shows(f"Trial {number} (", "Note")


def show_report(browser: Browser, path: Path) -> None:
    """The report, opened as a file."""
    browser.open(path.as_uri())
    browser.until("its pictures", lambda: browser.run(_PICTURES))


def _close_assistant(browser: Browser) -> None:
    """A panel that covers a quarter of the window, until it is closed for the first time."""
    browser.click_if_there("//button[@data-component-id='mlflow.assistant.chat_panel.close']")
