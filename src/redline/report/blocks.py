"""What a page is made of."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Source:
    """A paper, with the page's only kind of link."""

    kind: ClassVar[str] = "source"
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
    """``words``: the headings of columns that are not numbers."""

    kind: ClassVar[str] = "table"
    name: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """Drawn when the page is written; ``name`` is its file's, without ``.png``."""

    kind: ClassVar[str] = "picture"
    name: str
    alt: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader opens by a click."""

    kind: ClassVar[str] = "fold"
    summary: str
    blocks: Sequence["Block"]


Block = Text | Source | Table | Picture | Fold


@dataclass(frozen=True)
class Section:
    """``reading`` says what is shown, and how to read it."""

    name: str
    title: str
    reading: str
    blocks: Sequence[Block]


DASH = "–"


def number(value: float | None, form: str) -> str:
    return DASH if value is None else f"{value:{form}}"
