"""Show files outside of ``docs`` on the site, and mend the links that lead there."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath

from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[1]
PAGES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "demo.md": "README.md#demo-and-tests",
    "findings.md": "findings/README.md",
    "methods.md": "README.md#methods",
}
"""Pages of the site that are files, or sections of files, outside of ``docs``."""

FILES = ("notebooks/demo.ipynb",)
"""Files outside of ``docs`` that the site has as they are."""

INCLUDED = re.compile(r"^\[[^\]\n]*\]\(\.\./(README\.md#[\w-]+)\)$", re.MULTILINE)
"""A line of a page that is nothing but a link to a section: the site has the section there."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
_slug = slugify(case="lower")


def text_of(source: str) -> str:
    """Return a file of the repository, or with ``FILE#ANCHOR`` the section of that heading.

    A section goes to the next heading of its level; that of a file's title to the next heading.

    Raises:
        KeyError: the file has no such heading.
    """
    file, _, anchor = source.partition("#")
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    if not anchor:
        return "\n".join(lines)
    found = headings(lines)
    for place, (start, level, title) in enumerate(found):
        if _slug(title, "-") == anchor:
            ends = [at for at, other, _ in found[place + 1 :] if other <= max(level, 2)]
            return "\n".join(lines[start : ends[0] if ends else len(lines)])
    raise KeyError(source)


def headings(lines: list[str]) -> list[tuple[int, int, str]]:
    """Return line, level and text of the headings, without comments in blocks of code."""
    found, code = [], False
    for place, line in enumerate(lines):
        code ^= line.startswith("```")
        heading = re.match(r"(#+) (.+)", line)
        if heading and not code:
            found.append((place, len(heading[1]), heading[2]))
    return found


def page_text(page: str) -> str:
    """Return the text of one of ``PAGES``, with its first heading as title."""
    source = PAGES[page]
    return relinked(re.sub(r"^#+ ", "# ", text_of(source)), source.partition("#")[0], page)


def with_sections(markdown: str, page: str) -> str:
    """Return a page's text with the sections in place of the lines that only link to them."""

    def section(line: re.Match[str]) -> str:
        text = relinked(text_of(line[1]), "README.md", page)
        return re.sub(r"^# .*\n", "", text)

    return INCLUDED.sub(section, markdown)


def places() -> dict[str, str]:
    """Return where on the site each file or section is that lies outside of ``docs``."""
    front = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    included = dict.fromkeys(INCLUDED.findall(front), "index.md")
    kept = {file: file for file in FILES}
    return {"README.md": "index.md"} | kept | included | {at: page for page, at in PAGES.items()}


def relinked(markdown: str, source: str, page: str) -> str:
    """Return a text of a file of the repository with links as the site needs them.

    Args:
        markdown: the text, of the whole file or of a part.
        source: the file, from the root.
        page: the site's page that shows the text.

    Raises:
        KeyError: a link leads to what the site does not show.
    """
    known = places()

    def link(found: re.Match[str]) -> str:
        target = found[1]
        own_anchor = target.startswith("#") and source.startswith("docs/")
        if own_anchor or re.match(r"[a-z]+:", target):
            return found[0]
        file, _, anchor = target.partition("#")
        path = normpath(f"{dirname(source)}/{file}".lstrip("/")) if file else source
        if path.startswith("docs/"):
            there = path.removeprefix("docs/")
        else:
            there = known.get(f"{path}#{anchor}") or known[path]
        there = relpath(there, dirname(page) or ".")
        return f"]({there}#{anchor})" if anchor else f"]({there})"

    return LINK.sub(link, markdown)
