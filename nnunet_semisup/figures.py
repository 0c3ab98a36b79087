"""Turn figures of matplotlib into what a page holds."""

from __future__ import annotations

import re
from io import BytesIO, StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure

INK = "#0a0b0c"
"""Color in a drawing that becomes the color of the page's text, in light and in dark."""
DARK = "#14171c"
LIGHT = "#e4e7ec"


def small_png(figure: Figure) -> bytes:
    """Return a PNG with a palette of 256 colors, about a third of the size."""
    from PIL import Image

    buffer, small = BytesIO(), BytesIO()
    figure.savefig(buffer, format="png")
    reduced = Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    reduced.save(small, format="png", optimize=True)
    return small.getvalue()


def inline_svg(figure: Figure, name: str) -> str:
    """Return an SVG element for a page of HTML; what is drawn in :data:`INK` follows the page.

    Args:
        figure: the drawing.
        name: unique on the page; the same drawing under the same name is the same text.
    """
    buffer = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(
        r'\bid="(figure|axes|patch|text|line2d|matplotlib|xtick|ytick|legend|Line|'
        r'Path|PathCollection)[\w.]*"',
        "",
        text,
    )
    return text.replace(INK, "currentColor")


def in_ink() -> dict[str, str]:
    """Return settings of matplotlib under which axes and texts take the page's color."""
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {**dict.fromkeys(names, INK), "font.size": "9"}
