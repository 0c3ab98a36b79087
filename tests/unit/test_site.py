"""The site builds without a warning, is complete, and asks nothing of the network."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from nnunet_semisup.registry import METHODS
from tests.project import ROOT
from website import outside, pictures
from website.command_reference import command_reference

LOADED = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "srcset"),
}
"""What a browser asks for when it shows a page; links are only followed."""


class Page(HTMLParser):
    """Collect what a page loads, where it leads, its anchors, and the text outside of code."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.anchors, self.texts, self.within = [], [], set(), [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.within += tag in ("pre", "code", "script", "style")
        for name, value in attributes:
            if (tag, name) in LOADED:
                self.loaded.append(value)
            if (tag, name) == ("a", "href"):
                self.links.append(value)
            if name == "id":
                self.anchors.add(value)

    def handle_endtag(self, tag):
        self.within -= tag in ("pre", "code", "script", "style")

    def handle_data(self, data):
        if not self.within:
            self.texts.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site; a warning ends the build."""
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_docs_and_every_method_is_there(site, pages):
    docs = ROOT / "docs"
    names = {path.relative_to(docs).with_suffix(".html").as_posix() for path in docs.rglob("*.md")}
    names = {re.sub(r"README\.html$", "index.html", name) for name in names}
    shown = {path.relative_to(site).as_posix() for path in pages}
    others = {page.replace(".md", ".html") for page in outside.PAGES}
    assert shown == names | others | {"404.html", "command_reference.html"}
    linked = {link for link in pages[site / "index.html"].links if link.startswith("methods/")}
    assert {f"methods/{method.page or method.module}.html" for method in METHODS} <= linked


def test_every_link_leads_to_an_anchor_that_is_there(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme or path.name == "404.html":
                continue
            file, anchor = urldefrag(link)
            there = (path.parent / unquote(file)).resolve() if file else path
            if there.suffix == ".ipynb" and there.is_file():
                continue
            if there not in pages or (anchor and unquote(anchor) not in pages[there].anchors):
                broken.append((path.name, link))
    assert broken == []


def test_nothing_comes_from_the_network(site, pages):
    loaded = {value for page in pages.values() for value in page.loaded}
    assert {value for value in loaded if re.match(r"(https?:)?//", value)} == set()
    assert "javascripts/iframe-worker.js" in loaded
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", path.read_text("utf-8")), path


def test_markdown_became_html(pages):
    left = re.compile(r"^\s*\* |\| ?-{3}|\]\(|^#+ |^\| |^```|:(?:class|func|meth):", re.MULTILINE)
    found = {path.name: left.findall("".join(page.texts)) for path, page in pages.items()}
    assert {name: marks for name, marks in found.items() if marks} == {}


def test_search_knows_the_terms(site):
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    assert "glossary.html#ramp-up" in [entry["location"] for entry in index["docs"]]


def test_glossary_is_in_order():
    lines = (ROOT / "docs" / "glossary.md").read_text("utf-8").splitlines()
    terms = [title.strip("`").lower() for _, level, title in outside.headings(lines) if level == 2]
    assert terms == sorted(terms)


def test_front_page_has_the_commands_of_the_readme(site):
    text = (site / "index.html").read_text("utf-8")
    for section in ("install", "use-it", "what-it-brings"):
        assert f'id="{section}"' in text
    assert "nnUNetv2_semisup_plan_and_preprocess" in text


def build_page(text, folder):
    """Build a site of one page by the same rules for links."""
    docs = folder / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(text, encoding="utf-8")
    of_one_page = {"nav": ["index.md"], "hooks": [], "plugins": []}
    folders = {"docs_dir": str(docs), "site_dir": str(folder / "site")}
    build(load_config(str(ROOT / "mkdocs.yml"), **folders, **of_one_page))


def test_a_link_into_nowhere_ends_the_build(tmp_path):
    (tmp_path / "wrong").mkdir()
    build_page("# One\n\n[one](#one)\n", tmp_path)
    with pytest.raises(Abort, match="1 warnings"):
        build_page("# One\n\n[two](#two)\n", tmp_path / "wrong")


def test_sections_end_where_the_next_begins():
    section = outside.text_of("README.md#install")
    assert section.startswith("## Install\n")
    assert [line for line in section.splitlines() if line.startswith("## ")] == ["## Install"]
    assert outside.text_of("README.md#nnunet-semisup").count("\n#") == 0
    with pytest.raises(KeyError, match="no-such"):
        outside.text_of("README.md#no-such")


def test_comments_in_code_are_no_headings():
    assert outside.headings(["# A", "```bash", "# a comment", "```", "## B"]) == [
        (0, 1, "A"),
        (4, 2, "B"),
    ]


@pytest.mark.parametrize(
    ("source", "page", "link", "expected"),
    [
        (
            "CHANGELOG.md",
            "changelog.md",
            "docs/own_method.md#prediction",
            "own_method.md#prediction",
        ),
        ("docs/own_method.md", "own_method.md", "../CONTRIBUTING.md", "contributing.md"),
        ("docs/install.md", "install.md", "../README.md#install", "index.md#install"),
        (
            "docs/methods/cps.md",
            "methods/cps.md",
            "../../README.md#methods",
            "../methods.md#methods",
        ),
        ("README.md", "index.md", "#methods", "methods.md#methods"),
        ("findings/README.md", "findings.md", "../docs/field_reports.md", "field_reports.md"),
        ("docs/training.md", "training.md", "#which-fold", "#which-fold"),
        ("docs/rounds.md", "rounds.md", "https://github.com/a/b", "https://github.com/a/b"),
    ],
)
def test_links_out_of_docs_lead_to_pages_of_the_site(source, page, link, expected):
    assert outside.relinked(f"[a]({link})", source, page) == f"[a]({expected})"


def test_links_to_what_the_site_lacks_are_refused():
    with pytest.raises(KeyError, match="LICENSE"):
        outside.relinked("[a](../LICENSE)", "docs/install.md", "install.md")


def test_reference_has_every_argument_of_a_command():
    text = command_reference()
    for shown in ("`nnUNetv2_semisup_rounds plan`", "`--overlays", "`nnUNetv2_semisup_verify`"):
        assert shown in text
    assert "%(" not in text


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_are_current(name):
    drawn = (pictures.IMAGES / name).read_text(encoding="utf-8")
    assert drawn == pictures.PICTURES[name](), "run python -m website.pictures"
