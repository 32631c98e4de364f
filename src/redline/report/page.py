"""The report: one HTML page that needs nothing beside it, and its pictures as files."""

import base64
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from redline.config import shipped
from redline.files import atomic_write
from redline.report.blocks import Picture
from redline.report.search import Search
from redline.report.topics import all_sections

PAGE = "report.html"
_DPI = 130  # dots per inch of the pictures
_SHOWN = 96  # CSS pixels per inch
_SHAPE = {
    "model/width": "width",
    "model/num_layers": "layers",
    "model/num_heads": "heads",
    "model/vocab_size": "vocabulary",
    "data/sequence_length": "tokens a sequence",
    "data/batch_size": "sequences a batch",
}


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

    html = render(search, reference or shipped("hydra/sweeper/max_lr").reference, keep)
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
        setup=_setup(search),
        trouble=search.curves.trouble,
        sections=sections,
        picture=picture,
    )


def _setup(search: Search) -> str:
    """What all runs had in common, in a few words: the model's shape where it was tracked, length, seeds."""
    runs = [next((run for run in variant.runs if run.run_id), None) for variant in search.variants]
    tracked = [run.parameters for run in runs if run is not None]
    words = []
    for key, name in _SHAPE.items():
        values = {parameters.get(key) for parameters in tracked}
        if len(values) == 1 and None not in values:
            words.append(f"{values.pop()} {name}")
    lengths = sorted({its.facts.max_steps for its in search.variants if its.facts.max_steps is not None})
    if lengths:
        words.append(f"{' or '.join(map(str, lengths))} steps a run")
    precisions = sorted({its.facts.precision for its in search.variants if its.facts.precision is not None})
    if precisions:
        words.append(" or ".join(precisions))
    ladder = f"{len(search.ladder)} rungs from {search.ladder[0]:g} to {search.ladder[-1]:g}"
    return ", ".join([*words, ladder, f"{search.seeds} seed(s)"])


def _draw(block: Picture) -> tuple[bytes, int, int]:
    figure = block.draw()
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A variant's name may have characters that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format="png", dpi=_DPI)
    width, height = figure.get_size_inches() * _SHOWN
    return file.getvalue(), round(width), round(height)
