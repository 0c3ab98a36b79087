"""Compose a report of texts, tables and pictures, once for HTML and Markdown.

The HTML is one file that asks nothing of the network: pictures are in it, and a policy in its head
forbids the browser whatever is not.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nnunet_semisup.evaluation.tables import format_table, is_numeric, shown_cell

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --ink: #1c1f24; --dim: #5c6370; --line: #d5d9e0; --paper: #fff;
  --soft: #f3f5f8; --mark: #fff7dd; --edge: #d0a000; --good: #1273b5; --bad: #c2500a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec; --dim: #9aa2b1; --line: #363c47;
  --paper: #14171c; --soft: #1e232b; --mark: #2c2814; --edge: #d0a000; --good: #55b3ee;
  --bad: #f2924e; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 1em;
  color: var(--ink); background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 1.15em; color: var(--dim); font-weight: 600; margin: 0 0 .5em; }
h2 { font-size: 1.25em; margin: 1.8em 0 .4em; } h3 { font-size: 1.05em; margin: 1.2em 0 .4em; }
.scroll { overflow-x: auto; margin: .6em 0; }
table { border-collapse: separate; border-spacing: 0; font-size: .92em;
  font-variant-numeric: tabular-nums; }
th, td { padding: .25em .7em; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { color: var(--dim); font-weight: 600; } td.number, th.number { text-align: right; }
td { white-space: nowrap; } td.long { white-space: normal; min-width: 14em; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--paper); }
tr.marked td { background: var(--soft); font-weight: 600; }
tr.quoted td { color: var(--dim); font-style: italic; }
figure { margin: 1em 0; overflow-x: auto; } figcaption, .caption { color: var(--dim);
  font-size: .92em; }
img, svg { max-width: 100%; height: auto; } figure.wide img { min-width: 620px; }
code, pre { background: var(--soft); } pre { padding: .7em; overflow-x: auto; font-size: 13px; }
details { margin: .5em 0; } summary { cursor: pointer; color: var(--dim); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: .6em; }
.grid figure { margin: 0; }
.columns { display: flex; flex-wrap: wrap; gap: 1em; } .columns > * { flex: 1 1 320px;
  min-width: 0; }
@media (max-width: 600px) { table { font-size: .8em; } th, td { padding: .25em .4em; }
  td:first-child { white-space: normal; max-width: 8.5em; } td.long { min-width: 11em; } }
.verdict { font-size: 1.25em; line-height: 1.4; margin: .4em 0; }
.note { border-left: 4px solid var(--edge); padding: .2em 1em; background: var(--mark); }
"""


class Part(Protocol):
    """A piece of a document."""

    def html(self) -> str:
        """Return it as HTML."""

    def markdown(self) -> str:
        """Return it as Markdown; empty where it has no place there."""


@dataclass(frozen=True)
class Heading:
    """Begin a section."""

    text: str
    level: int = 2

    def html(self) -> str:
        """Return it as HTML."""
        return f"<h{self.level}>{html.escape(self.text)}</h{self.level}>"

    def markdown(self) -> str:
        """Return it as Markdown."""
        return f"{'#' * self.level} {self.text}"


@dataclass(frozen=True)
class Text:
    """Hold a paragraph; ``kind`` is ``verdict``, ``note``, ``caption`` or empty."""

    text: str
    kind: str = ""

    def html(self) -> str:
        """Return it as HTML."""
        kind = f' class="{self.kind}"' if self.kind else ""
        return f"<p{kind}>{html.escape(self.text)}</p>"

    def markdown(self) -> str:
        """Return it as Markdown."""
        return {"verdict": f"**{self.text}**", "note": f"> {self.text}"}.get(self.kind, self.text)


@dataclass(frozen=True)
class Listing:
    """Hold sentences one below the other."""

    items: Sequence[str]

    def html(self) -> str:
        """Return it as HTML."""
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in self.items) + "</ul>"

    def markdown(self) -> str:
        """Return it as Markdown."""
        return "\n".join(f"* {item}" for item in self.items)


@dataclass(frozen=True)
class Code:
    """Hold what is typed or read by a machine."""

    text: str

    def html(self) -> str:
        """Return it as HTML."""
        return f"<pre>{html.escape(self.text)}</pre>"

    def markdown(self) -> str:
        """Return it as Markdown."""
        return f"```\n{self.text}\n```"


@dataclass(frozen=True)
class Table:
    """Hold a table.

    Attributes:
        header: titles of the columns.
        rows: cells; floats are shown with four digits, ``None`` and NaN as ``-``.
        marked: numbers of rows that stand out, as the one that others are held against.
        quoted: numbers of rows that are somebody else's.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    marked: frozenset[int] = frozenset()
    quoted: frozenset[int] = frozenset()

    def html(self) -> str:
        """Return it as HTML, in a box that scrolls where it is too wide."""
        cells = [[shown_cell(cell) for cell in row] for row in self.rows]
        right = [is_numeric([row[i] for row in cells]) for i in range(len(self.header))]
        lines = [self._line(self.header, "th", right, "")]
        for number, row in enumerate(cells):
            kind = "marked" if number in self.marked else ""
            kind = "quoted" if number in self.quoted else kind
            lines.append(self._line(row, "td", right, kind))
        return f'<div class="scroll"><table>{"".join(lines)}</table></div>'

    @staticmethod
    def _line(cells: Sequence[str], tag: str, right: Sequence[bool], kind: str) -> str:
        parts = []
        for cell, numeric in zip(cells, right, strict=True):
            name = "number" if numeric else "long" if len(cell) > 40 else ""
            named = f' class="{name}"' if name else ""
            parts.append(f"<{tag}{named}>{html.escape(cell)}</{tag}>")
        return f"<tr{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{''.join(parts)}</tr>"

    def markdown(self) -> str:
        """Return it as Markdown."""
        return format_table(self.header, self.rows, markdown=True)


@dataclass(frozen=True)
class Picture:
    """Hold a picture: the bytes of a PNG, or the text of an SVG; ``wide`` ones may scroll."""

    content: bytes | str
    caption: str = ""
    wide: bool = False

    def html(self) -> str:
        """Return it as HTML, content and all."""
        text = html.escape(self.caption)
        if isinstance(self.content, bytes):
            data = base64.b64encode(self.content).decode("ascii")
            shown = f'<img alt="{text}" src="data:image/png;base64,{data}">'
        else:
            shown = self.content
        kind = ' class="wide"' if self.wide else ""
        return f"<figure{kind}>{shown}<figcaption>{text}</figcaption></figure>"

    def markdown(self) -> str:
        """Return nothing: Markdown cannot hold it."""
        return ""


@dataclass(frozen=True)
class Group:
    """Hold parts side by side (``grid``, ``columns``), or folded behind a title."""

    parts: Sequence[Part]
    kind: str = ""
    title: str = ""

    def html(self) -> str:
        """Return it as HTML."""
        inner = "\n".join(part.html() for part in self.parts)
        if self.title:
            return f"<details><summary>{html.escape(self.title)}</summary>{inner}</details>"
        return f'<div class="{self.kind}">{inner}</div>'

    def markdown(self) -> str:
        """Return it as Markdown; what is folded is left out."""
        return "" if self.title else "\n\n".join(_texts(self.parts))


@dataclass(frozen=True)
class PageOnly:
    """Hold parts that Markdown leaves out, as pictures and what is said about them."""

    parts: Sequence[Part]

    def html(self) -> str:
        """Return them as HTML."""
        return "\n".join(part.html() for part in self.parts)

    def markdown(self) -> str:
        """Return nothing."""
        return ""


def to_html(title: str, parts: Sequence[Part], refresh_seconds: int = 0) -> str:
    """Return a page that holds everything it shows.

    Args:
        title: of the window.
        parts: from top to bottom.
        refresh_seconds: after which the browser reads the file again; 0: never.
    """
    refresh = f'<meta http-equiv="refresh" content="{refresh_seconds}">' if refresh_seconds else ""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">{refresh}',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
            *(part.html() for part in parts),
            "</body></html>",
            "",
        ]
    )


def to_markdown(parts: Sequence[Part]) -> str:
    """Return the texts and tables of the same document, without what is folded."""
    return "\n\n".join(_texts(parts)) + "\n"


def _texts(parts: Sequence[Part]) -> list[str]:
    return [text for part in parts if (text := part.markdown())]
