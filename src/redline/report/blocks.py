"""What a page is made of."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Source:
    """A paper, with the page's only kind of link."""

    text: str
    url: str


RYBAKOV = Source(
    "Rybakov et al., Methods of improving LLM training stability, arXiv 2410.16682",
    "https://arxiv.org/abs/2410.16682",
)
WORTSMAN = Source(
    "Wortsman et al., Small-scale proxies for large-scale Transformer training instabilities, "
    "arXiv 2309.14322",
    "https://arxiv.org/abs/2309.14322",
)


@dataclass(frozen=True)
class Table:
    """``words``: the headings of columns that are not numbers. ``fold``: what opens the table by a click."""

    name: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[str] = ()
    notes: Sequence[str] = ()
    fold: str | None = None


@dataclass(frozen=True)
class Picture:
    """Drawn when the page is written; ``name`` is its file's, without ``.png``."""

    name: str
    alt: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """Paragraphs, tables and pictures; ``readings.html.j2`` says by ``name`` how to read them."""

    name: str
    title: str
    blocks: Sequence[str | Table | Picture]
    source: Source | None = None


DASH = "–"


def number(value: float | None, form: str) -> str:
    return DASH if value is None else f"{value:{form}}"
