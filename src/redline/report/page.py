"""The report: one HTML page that needs nothing beside it, and its pictures as files."""

import base64
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from redline.files import atomic_write
from redline.report.blocks import Picture
from redline.report.header import setup_words
from redline.report.search import Search
from redline.report.sections import all_sections
from redline.report.stores import default_reference

PAGE = "report.html"
_DPI = 130  # dots per inch of the pictures
_SHOWN = 96  # CSS pixels per inch


@dataclass(frozen=True)
class Shown:
    """A picture in the page: its content, and its size in CSS pixels."""

    url: str
    width: int
    height: int


def write_report(search: Search, directory: Path, reference: str | None = None) -> Path:
    """Write ``report.html`` and its PNGs into ``directory``; gives the page's path.

    Ratios are to the variant ``reference``, by default the configuration's. PNGs of an earlier report that
    are not part of this one are removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written: set[Path] = set()

    def keep(name: str, png: bytes) -> None:
        path = directory / f"{name}.png"
        with atomic_write(path) as file:
            file.write(png)
        written.add(path)

    html = render(search, reference or default_reference(), keep)
    path = directory / PAGE
    with atomic_write(path) as file:
        file.write(html.encode())
    for old in set(directory.glob("*.png")) - written:
        old.unlink(missing_ok=True)
    return path


def render(search: Search, reference: str, keep: Callable[[str, bytes], None]) -> str:
    """The page; ``keep`` is handed every picture's name and PNG."""

    def picture(block: Picture) -> Shown:
        png, width, height = _draw(block)
        keep(block.name, png)
        return Shown(f"data:image/png;base64,{base64.b64encode(png).decode()}", width, height)

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = all_sections(search, reference)
    return environment.get_template("page.html.j2").render(
        search=search,
        setup=setup_words(search),
        trouble=search.curves.trouble,
        sections=sections,
        picture=picture,
    )


def _draw(block: Picture) -> tuple[bytes, int, int]:
    figure = block.draw()
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A variant's name may have characters that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format="png", dpi=_DPI)
    width, height = figure.get_size_inches() * _SHOWN
    return file.getvalue(), round(width), round(height)
