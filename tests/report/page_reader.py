"""A report's page as a browser takes it apart."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path


@dataclass
class Page:
    tags: list[str] = field(default_factory=list)
    addresses: list[tuple[str, str]] = field(default_factory=list)  # tag, src or href
    tables: dict[str, list[list[str]]] = field(default_factory=dict)  # id -> rows, the headings first
    text: str = ""

    def rows(self, table: str) -> list[dict[str, str]]:
        """Heading -> cell, a row each."""
        headings, *rows = self.tables[f"table-{table}"]
        return [dict(zip(headings, row, strict=True)) for row in rows]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._table: list[list[str]] | None = None
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        its = dict(attrs)
        self.page.tags.append(tag)
        self.page.addresses += [
            (tag, its[key] or "") for key in ("src", "href", "srcset", "data") if key in its
        ]
        if tag == "table":
            self._table = self.page.tables.setdefault(its["id"] or "", [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.page.text += data
        if self._in_cell and self._table is not None:
            self._table[-1][-1] += data


def read_page(path: Path) -> Page:
    reader = _Reader()
    reader.feed(path.read_text())
    reader.close()
    return reader.page
