"""What happens when mkdocs builds the site (``mkdocs.yml``)."""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nnunet_semisup.cli._pages import page_of  # noqa: E402
from nnunet_semisup.registry import FAMILIES, METHODS  # noqa: E402
from website.command_reference import command_reference  # noqa: E402
from website.outside import FILES, PAGES, page_text, relinked, with_sections  # noqa: E402

DRAWING = re.compile(r'<img alt="([^"]*)" src="([^"]+\.svg)" ?/?>')
SEARCHED = {"glossary.md": 2, "datasets/faults.md": 0.2}
"""Pages that the search ranks higher, or lower, than the others."""
OPTION = re.compile(r"(?<![^\s>\[])--?[A-Za-z][\w-]*")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of methods by family, as the registry has them, and those of benchmarks."""
    sections = {name: pages for entry in config.nav or () for name, pages in entry.items()}
    sections["Methods"] += pages_by_family()
    results = sorted((Path(config.docs_dir) / "results").glob("*.md"))
    sections["Measurements"] += [
        {page.stem.replace("_", " ").capitalize(): f"results/{page.name}"} for page in results
    ]
    return config


def pages_by_family() -> list[dict[str, list[dict[str, str]]]]:
    """Return the entries of the navigation: families, and in each the pages of its methods."""
    names: dict[str, list[str]] = {}
    families: dict[str, dict[str, None]] = {family: {} for family in FAMILIES}
    for method in METHODS:
        page = f"methods/{page_of(method).name}"
        if page not in names:
            families[method.family][page] = None
        names.setdefault(page, []).append(method.trainer.removeprefix("nnUNetTrainer"))
    return [
        {family.capitalize(): [{", ".join(names[page]): page} for page in pages]}
        for family, pages in families.items()
        if pages
    ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that are not in ``docs``."""
    for page in PAGES:
        files.append(File.generated(config, page, content=page_text(page)))
    for file in FILES:
        files.append(File.generated(config, file, abs_src_path=str(ROOT / file)))
    files.append(File.generated(config, "command_reference.md", content=command_reference()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Show sections of other files, mend links that leave ``docs``, drop the marks of scripts."""
    path = page.file.src_uri
    page.meta["search"] = {"boost": SEARCHED.get(path, 1)}
    if page.file.generated_by is None:
        markdown = relinked(with_sections(markdown, path), f"docs/{path}", path)
    return re.sub(r"<!-- .*? -->\n", "\n", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Put drawings into the page, where they take its colours; mend references and options.

    References are those of docstrings (``:func:``); an option is not broken after its hyphens.
    """

    def drawing(image: re.Match[str]) -> str:
        file = (Path(config.docs_dir) / page.file.src_uri).parent / image[2]
        svg = file.read_text(encoding="utf-8")
        return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(image[1])}" ', 1)

    def options(code: re.Match[str]) -> str:
        return OPTION.sub(r'<span class="option">\g<0></span>', code[0])

    html = re.sub(r"<code>[^<]*</code>", options, DRAWING.sub(drawing, html))
    return re.sub(r":(?:class|func|meth|mod|attr):<code>~?", "<code>", html)
