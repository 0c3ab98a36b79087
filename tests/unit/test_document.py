"""A document says the same as a page and as Markdown, and keeps strangers' text harmless."""

from __future__ import annotations

from matplotlib import rc_context
from matplotlib.figure import Figure

from nnunet_semisup.document import (
    Group,
    Heading,
    Listing,
    PageOnly,
    Picture,
    Table,
    Text,
    to_html,
    to_markdown,
)
from nnunet_semisup.figures import INK, in_ink, inline_svg

PARTS = (
    Heading("Result", 1),
    Text("better", "verdict"),
    Table(["row", "Dice"], [["<a>", 0.5], ["b|c", None]], marked=frozenset({0})),
    Group([Text("in full")], title="More"),
    PageOnly([Heading("Seen")]),
    Listing(["one", "two"]),
    Picture(b"png", "a picture"),
)


def test_markdown_has_what_can_be_read_without_pictures():
    assert to_markdown(PARTS) == (
        "# Result\n\n**better**\n\n"
        "| row  |   Dice |\n| ---- | -----: |\n| <a>  | 0.5000 |\n| b\\|c |      - |\n\n"
        "* one\n* two\n"
    )


def test_page_escapes_and_marks():
    text = to_html("A & B", PARTS)
    assert "<title>A &amp; B</title>" in text
    assert '<tr class="marked"><td>&lt;a&gt;</td><td class="number">0.5000</td></tr>' in text
    assert "<summary>More</summary><p>in full</p>" in text
    assert '<img alt="a picture" src="data:image/png;base64,cG5n">' in text
    assert "refresh" not in text
    assert '<meta http-equiv="refresh" content="60">' in to_html("", (), 60)


def test_drawing_takes_the_page_s_color_and_repeats_itself():
    def draw():
        with rc_context(in_ink()):
            figure = Figure(figsize=(1, 1))
            figure.subplots().plot([0, 1])
        return inline_svg(figure, "name")

    text = draw()
    assert text.startswith("<svg")
    assert INK not in text
    assert "currentColor" in text
    assert "<metadata" not in text
    assert draw() == text
