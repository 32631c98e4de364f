"""Debian's Chromium without a window: opens a page, waits for what it shows, says what went wrong in it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

_WINDOW = (1600, 1000)  # pixels
_PATIENCE = 300.0  # seconds

# A page that draws itself anew takes away, hides or covers an element between the look for it and the click.
_DRAWING = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)

# Messages of the pages' own makers, word for word but for the address.
_KNOWN = {
    # MLflow's UI asks who is logged in, also of a server that has no users; there is no setting for it.
    "/ajax-api/2.0/mlflow/users/current - Failed to load resource: "
    "the server responded with a status of 404 (Not Found)",
    # MLflow's UI reports what a browser says where a chart's size changes as it is drawn.
    'null "ResizeObserver loop completed with undelivered notifications."',
}


def installed() -> tuple[str, str] | None:
    """The paths of the browser and its driver, or None where one is missing."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self._requests: list[str] = []

    def open(self, url: str) -> None:
        self.driver.get(url)

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        """The first true answer."""
        wait = WebDriverWait(self.driver, _PATIENCE, 0.2, ignored_exceptions=_DRAWING)
        return wait.until(lambda _: condition(), f"never showed {what}")

    def shows(self, *texts: str) -> None:
        for text in texts:
            self.until(text, lambda text=text: text in self.text())

    def text(self) -> str:
        return self.run("return document.body.innerText")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, xpath: str) -> WebElement:
        return self.until(xpath, lambda: self.driver.find_elements(By.XPATH, xpath))[0]

    def click(self, xpath: str) -> None:
        self.until(xpath, lambda: self.driver.find_element(By.XPATH, xpath).click() is None)

    def click_if_there(self, xpath: str) -> None:
        def clicked() -> bool:
            for element in self.driver.find_elements(By.XPATH, xpath):
                element.click()
            return True

        self.until(xpath, clicked)

    def type(self, xpath: str, text: str) -> None:
        self.until(xpath, lambda: self.driver.find_element(By.XPATH, xpath).send_keys(text) is None)

    def errors(self) -> list[str]:
        """What the console has said since the last time that is an error."""
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in said if not any(message.endswith(known) for known in _KNOWN)]

    def hosts(self) -> set[str]:
        """`file:`, `data:` or the host of everything that was asked for since the last time."""
        asked = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [
            its["params"]["request"]["url"] for its in asked if its["method"] == "Network.requestWillBeSent"
        ]
        return {urlsplit(url).hostname or f"{urlsplit(url).scheme}:" for url in urls}

    def resize(self, width: int, height: int) -> None:
        """Pixels, of the window."""
        self.driver.set_window_size(width, height)

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))


@contextmanager
def open_browser(programs: tuple[str, str]) -> Iterator[Browser]:
    options = ChromeOptions()
    options.binary_location, driver = programs
    size = ",".join(map(str, _WINDOW))
    for argument in ("headless=new", f"window-size={size}", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which root may not have
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()
