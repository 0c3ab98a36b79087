"""Pages of methods: their text, and the part that the registry and the classes give."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import nnunet_semisup
from nnunet_semisup.cli._hyperparameters import Hyperparameter, hyperparameters
from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.registry import FAMILIES, METHODS, Method

OWN_BASES = {"text_semiseg": "TextGuidance", "semisup": "ScanLabelTrainer"}
"""Base class of a method whose settings its page has beside those of the trainer."""
FAMILY = "Left atrium on a coarser grid: the family"
"""Heading of the table that has the methods without a kept report."""
BEGIN, END = "<!-- from the registry -->\n", "<!-- /from the registry -->\n"


def pages_folder() -> Path:
    """Return where the pages are: in the installed package, or in the repository's docs."""
    package = Path(nnunet_semisup.__file__).parent
    installed = package / "pages"
    return installed if installed.is_dir() else package.parent / "docs" / "methods"


def page_of(method: Method) -> Path:
    """Return the file of a method's page."""
    return pages_folder() / f"{method.page or method.module}.md"


def methods_on(page: Path) -> list[Method]:
    """Return the methods that a page describes, in the registry's order."""
    return [method for method in METHODS if page_of(method).name == page.name]


def passes(method: Method) -> str:
    """Return the passes of a step in words."""
    back, alone = method.forwards
    text = f"{back:g} back and forth, {alone:g} without gradient"
    if method.decoder_forwards is not None:
        text += f"; {method.decoder_forwards[0]:g} and {method.decoder_forwards[1]:g} of decoders"
    return text


def facts(methods: Sequence[Method], markdown: bool = True) -> str:
    """Return what the registry says of methods as a table, a column each."""
    rows = {
        "paper": [f"[{m.paper}]({m.url})" if markdown else m.paper for m in methods],
        "family": [f"{method.family}: {FAMILIES[method.family]}" for method in methods],
        "dimensions": [", ".join(f"{d}D" for d in method.dims) for method in methods],
        "labels": [", ".join(method.labels) for method in methods],
        "passes of a step, in batches": [passes(method) for method in methods],
        "operations of a step, nnUNetTrainer's being 1": [method.cost for method in methods],
        "parameters trained, nnUNetTrainer's being 1": [m.parameters[0] for m in methods],
        "parameters kept beside them": [method.parameters[1] for method in methods],
        "needs, besides images": [method.needs for method in methods],
        "predicts as": [method.predicts_as for method in methods],
    }
    table = [(name, *values) for name, values in rows.items()]
    return format_table(("", *(method.trainer for method in methods)), table, markdown)


def own_hyperparameters(methods: Sequence[Method]) -> list[Hyperparameter]:
    """Return what the methods' own classes declare, not what every trainer has."""
    found: dict[str, Hyperparameter] = {}
    for method in methods:
        base = OWN_BASES.get(method.module)
        for one in hyperparameters(method):
            declared = one.declared_by
            own = declared.startswith("nnUNetTrainer") and declared != "nnUNetTrainer"
            if own or declared == base:
                found.setdefault(one.name, one)
    return list(found.values())


def generated(page: Path) -> str:
    """Return the part of a page that comes from the registry and the classes, in Markdown."""
    methods = methods_on(page)
    text = f"## At a glance\n\n{facts(methods)}\n"
    own = own_hyperparameters(methods)
    if own:
        rows = [(f"`{h.name}`", h.kind, h.default, h.description.replace("``", "`")) for h in own]
        header = ("hyper-parameter", "type", "default", "meaning")
        text += f"\n{format_table(header, rows, markdown=True)}\n"
    return f"{text}\n{measured([method.trainer for method in methods])}\n"


def measured(trainers: Sequence[str]) -> str:
    """Return what the kept reports of benchmarks say of trainers, in Markdown.

    Args:
        trainers: names; their rows with settings or parts of the network count, too.
    """
    rows = []
    for file in sorted((pages_folder().parent / "results").glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        lines = content["comparison"]
        lines = [line for line in lines if line["class"] == lines[0]["class"]]
        alone = {n["labels"]: n["metrics"]["Dice"]["mean"] for n in lines if not n["differences"]}
        for line in lines:
            if re.split("[:+ ]", line["row"])[0] in trainers:
                change = line["differences"].get("Dice", {})
                rows.append(
                    (
                        f"[{content['title']}](../results/{file.stem}.md)",
                        f"{content['design']['steps']:,}",
                        line["row"].removeprefix("nnUNetTrainer"),
                        f"{line['metrics']['Dice']['mean']:.3f}",
                        f"{alone[line['labels']]:.3f}",
                        f"{change['better']} and {change['worse']}" if change else "-",
                    )
                )
    if not rows:
        return before_the_reports(trainers)
    header = ("measured on", "steps", "row", "Dice", "labels alone", "cases better and worse")
    return format_table(header, rows, markdown=True)


def before_the_reports(trainers: Sequence[str]) -> str:
    """Return what the page of benchmarks has of some trainers, in a sentence.

    Args:
        trainers: names; their rows in the family's table on the left atrium are given.
    """
    text = (pages_folder().parent / "benchmarks.md").read_text(encoding="utf-8")
    section = text.partition(f"## {FAMILY}\n")[2].partition("\n## ")[0]
    table = [[cell.strip() for cell in line.split("|")] for line in section.splitlines()]
    dice = {cells[1].split(" ")[0]: cells[6] for cells in reversed(table) if len(cells) > 9}
    alone = dice["nnUNetTrainer"]
    found = [f"{name} {dice[name]}, the labels alone {alone}" for name in trainers if name in dice]
    if not found:
        return "Not among the [results](../results.md) yet; see [benchmarks](../benchmarks.md)."
    link = "#" + FAMILY.lower().replace(":", "").replace(" ", "-")
    return (
        "Not among the [results](../results.md) yet. In an "
        f"[older comparison](../benchmarks.md{link}) on 12 scans of the left atrium, one seed, "
        f"4 labeled and 64 unlabeled scans, the mean Dice is: {'; '.join(found)}."
    )


def with_generated(page: Path) -> str:
    """Return a page's text with its generated part made anew."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before.rstrip()}\n\n{BEGIN}{generated(page)}{END}{after}"


def prose(method: Method) -> str:
    """Return a method's page without the generated part, for a terminal."""
    text = page_of(method).read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return (before + rest.partition(END)[2]).strip()
