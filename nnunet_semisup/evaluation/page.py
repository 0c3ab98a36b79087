"""HTML pages of one file, which hold their pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

Table = tuple[list[str], list[list[object]]]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1150px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ccc; text-align: left; }
img { max-width: 100%; } figure { margin: 1em 0; } figcaption { color: #555; }
code, pre { background: #f3f3f3; } pre { padding: .7em; overflow-x: auto; font-size: 13px; }
.columns { display: flex; gap: 1em; } .columns > * { flex: 1; min-width: 0; }
.verdict { font-size: 1.2em; }
.note { border-left: 4px solid #d0a000; padding: .2em 1em; background: #fffbe8; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return a page of some parts, each HTML already."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text; ``kind`` is a class of the style."""
    start = f'<p class="{kind}">' if kind else "<p>"
    return f"{start}{html.escape(text)}</p>"


def html_table(table: Table) -> str:
    """Return a table of plain cells; floats have four digits, ``None`` is a dash."""
    header, rows = table

    def line(cells: Sequence[object], tag: str) -> str:
        shown = (
            f"{cell:.4f}" if isinstance(cell, float) else "-" if cell is None else str(cell)
            for cell in cells
        )
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in shown) + "</tr>"

    return "<table>" + line(header, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def figure(picture: Path, caption: str) -> str:
    """Return a PNG file with a caption."""
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
