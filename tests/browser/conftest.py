import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from chromium import Browser, installed, open_browser

from command_helpers import Finished

SCREENSHOTS = servers.ROOT / "artifacts" / "screenshots"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Where there is none, tests are skipped, but not where the environment says that there must be."""
    programs = installed()
    if programs is None:
        assert "REDLINE_TEST_BROWSER" not in os.environ, "chromium or chromedriver is not installed"
        pytest.skip("chromium and chromedriver are not installed")
    with open_browser(programs) as one:
        yield one


@pytest.fixture(scope="session")
def mlruns(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores of a search that has ended, a copy: other tests go on with theirs."""
    copy = tmp_path_factory.mktemp("shown") / "mlruns"
    shutil.copytree(finished.cwd / "mlruns", copy)
    return copy


@pytest.fixture(scope="session")
def mlflow_ui(mlruns: Path) -> Iterator[str]:
    with servers.mlflow_ui(mlruns) as address:
        yield address


@pytest.fixture(scope="session")
def dashboard(mlruns: Path) -> Iterator[str]:
    with servers.dashboard(mlruns) as address:
        yield address


@pytest.fixture
def screenshot(browser: Browser) -> Callable[[str], None]:
    """Keeps a picture of what is shown; see `artifacts/screenshots`."""
    return lambda name: browser.screenshot(SCREENSHOTS / f"{name}.png")
