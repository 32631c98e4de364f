"""The report: one HTML page that needs nothing beside it, and its pictures as files."""

import base64
import io
import warnings
from pathlib import Path
from typing import Any

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


def write_report(search: Search, directory: Path, reference: str | None = None) -> Path:
    """Write ``report.html`` and its PNGs into ``directory``; gives the page's path.

    Ratios are to the variant ``reference``, by default the configuration's. PNGs of an earlier report that
    are not part of this one are removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    reference = reference or shipped("hydra/sweeper/max_lr").reference
    written: set[Path] = set()

    def picture(block: Picture) -> dict[str, Any]:
        """Its content, also written beside the page, and its size in CSS pixels."""
        png, width, height = _draw(block)
        path = directory / f"{block.name}.png"
        with atomic_write(path) as file:
            file.write(png)
        written.add(path)
        url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return {"url": url, "width": width, "height": height}

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.j2").render(
        search=search,
        reference=reference,
        setup=_setup(search),
        sections=all_sections(search, reference),
        picture=picture,
    )
    path = directory / PAGE
    with atomic_write(path) as file:
        file.write(html.encode())
    for old in set(directory.glob("*.png")) - written:
        old.unlink(missing_ok=True)
    return path


def _setup(search: Search) -> str:
    """What all runs had in common, in a few words: the model's shape where it was tracked, length, seeds."""
    tracked = [run.tracked.parameters for run in search.runs if run.tracked.run_id]
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
