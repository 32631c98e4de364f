"""The pictures of the README, of a search under mlruns/: `make screenshots SEARCH=NAME`."""

import argparse
from pathlib import Path

import optuna
from chromium import Browser, installed, open_browser
from mlflow import MlflowClient
from pages import show_comparison, show_report, show_study
from PIL import Image
from servers import ROOT, dashboard, mlflow_ui

from redline.command_line import user_errors
from redline.errors import UserError
from redline.report import Search, load_search, write_report

IMAGES = ROOT / "docs" / "images"
_COLOURS = 128  # a picture of text and curves needs no more
_WIDTH = 1200  # pixels


def take(search: Search, mlruns: Path, browser: Browser) -> None:
    """The report; MLflow comparing the run at an edge with the diverged one above it; the dashboard."""
    browser.resize(1200, 1500)
    show_report(browser, write_report(search, mlruns / "searches" / search.name / "report"))
    keep(browser, "report")
    variant = next(its for its in search.variants if None not in its.pair)
    pair = [run.tracked.run_id for run in variant.pair if run is not None and run.tracked.run_id is not None]
    client = MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(search.name)
    assert experiment is not None
    norms = [key for key in client.get_run(pair[0]).data.metrics if key.startswith("norm/fc2/layer_")]
    browser.resize(1600, 900)
    with mlflow_ui(mlruns) as address:
        show_comparison(browser, address, experiment.experiment_id, pair, sorted(norms)[:3])
        keep(browser, "mlflow")
    study = optuna.load_study(
        study_name=f"{search.name}/{variant.name}", storage=f"sqlite:///{mlruns / 'optuna.db'}"
    )
    browser.resize(1600, 1900)  # as high as the loss curves
    with dashboard(mlruns) as address:
        show_study(browser, address, study._study_id)
        keep(browser, "dashboard")


def keep(browser: Browser, name: str) -> None:
    path = IMAGES / f"{name}.png"
    browser.screenshot(path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((_WIDTH, round(_WIDTH * picture.height / picture.width)))
    small.quantize(_COLOURS).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make screenshots", description=__doc__)
    parser.add_argument("name", nargs="?", help="of the search (default: the latest)")
    parser.add_argument("--mlruns", type=Path, default=ROOT / "mlruns")
    arguments = parser.parse_args()
    with user_errors():
        programs = installed()
        if programs is None:
            raise UserError("screenshots: need chromium and chromedriver; allowed: where both are found")
        mlruns = arguments.mlruns.absolute()
        search = load_search(
            arguments.name,
            storage=f"sqlite:///{mlruns / 'optuna.db'}",
            tracking_uri=f"sqlite:///{mlruns / 'mlflow.db'}",
        )
        with open_browser(programs) as browser:
            take(search, mlruns, browser)


if __name__ == "__main__":
    main()
