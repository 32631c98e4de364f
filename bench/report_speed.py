"""How long a report on 200 runs takes to write, how large it is, and how long a browser takes to open it.

The runs are made up: 10 variants, 4 rungs, 5 seeds, with output norms of 8 layers and attention logits, in
real stores. Opening is the time from a headless Chromium's start to its picture of the loaded page, less that
of an empty page, turn by turn.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _harness import ROOT, at_most, finish, machine, not_measured, spread

sys.path.insert(0, str(ROOT / "tests" / "report"))

from made_up_store import Fake, Stores, add_search, make_stores, norms

OPENING_BAR = 2.0  # seconds
SIZE_BAR = 10.0  # MB
VARIANTS, RUNGS, SEEDS, LAYERS = 10, 4, 5, 8
STEPS = range(0, 220, 10)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def make_search(folder: Path) -> Stores:
    stores = make_stores(folder)
    logits = {"attention/max_logit": {step: 10.0 + step for step in STEPS}}
    loss = {"train/loss": {step: 7.0 - step / 100 for step in STEPS}}

    def fake(rung: int, seed: int) -> Fake:
        diverged = rung == RUNGS - 1
        curves = norms(STEPS, LAYERS, size=1.0 + rung + seed / 10) | logits | loss
        return Fake(
            rung, seed, 4.0 + rung / 10 + seed / 100, "no_learning" if diverged else None, curves=curves
        )

    runs = [fake(rung, seed) for rung in range(RUNGS) for seed in range(SEEDS)]
    add_search(stores, "large", {f"variant_{index}": runs for index in range(VARIANTS)}, seeds=SEEDS)
    return stores


def write(stores: Stores) -> tuple[float, Path]:
    """Seconds of the whole command, its imports included, and the page."""
    assert stores.tracking_uri is not None
    places = ["--storage", stores.storage, "--tracking-uri", stores.tracking_uri]
    command = [sys.executable, "-m", "redline.report", "large", *places, "--searches", str(stores.searches)]
    start = time.perf_counter()
    subprocess.run(
        command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stdout=sys.stderr
    )
    return time.perf_counter() - start, stores.searches / "large" / "report" / "report.html"


def opening(browser: str, page: Path, folder: Path) -> float:
    """Seconds from a browser's start to its picture of ``page``."""
    profile, picture = tempfile.mkdtemp(dir=folder), folder / "picture.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        "--window-size=1300,1000",
    ]
    start = time.perf_counter()
    subprocess.run(
        [browser, *options, f"--screenshot={picture}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    seconds = time.perf_counter() - start
    assert picture.is_file()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="folder that the page is copied to")
    given = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = make_search(folder / "stores")
        seconds, page = write(stores)
        size = page.stat().st_size / 1e6
        print(f"{VARIANTS * RUNGS * SEEDS} runs: written in {seconds:.1f} s, {size:.1f} MB", flush=True)
        if given.keep is not None:
            shutil.copytree(page.parent, given.keep, dirs_exist_ok=True)
        bars = {"page_mb": at_most(SIZE_BAR, size)}
        browser = next((found for its in BROWSERS if (found := shutil.which(its))), None)
        if browser is None:
            bars["opening_seconds"] = not_measured(OPENING_BAR, "no Chromium is installed")
        else:
            empty = folder / "empty.html"
            empty.write_text("<!doctype html><title>empty</title>")
            turns = [
                (opening(browser, page, folder), opening(browser, empty, folder)) for _ in range(given.rounds)
            ]
            extra = [ours - nothing for ours, nothing in turns]
            print(f"  a browser's start and an empty page: {spread([its for _, its in turns], '.2f')} s")
            print(f"  the report, beyond that: {spread(extra, '.2f')} s", flush=True)
            bars["opening_seconds"] = at_most(OPENING_BAR, statistics.median(extra))
    finish("report_speed", bars)


if __name__ == "__main__":
    main()
