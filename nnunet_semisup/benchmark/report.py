"""Write the report of a benchmark: a page, Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.benchmark.beside import published_parts
from nnunet_semisup.benchmark.case_pictures import case_pictures
from nnunet_semisup.benchmark.collect import Benchmark, collect
from nnunet_semisup.benchmark.files import to_csv, to_json
from nnunet_semisup.benchmark.headline import explanation, headline
from nnunet_semisup.benchmark.plots import plot_cases, plot_trainings
from nnunet_semisup.benchmark.provenance import provenance
from nnunet_semisup.benchmark.published import PublishedDataset, read_published
from nnunet_semisup.benchmark.statistics import Line, compare_rows
from nnunet_semisup.benchmark.tables import (
    cost_table,
    differences_table,
    progress_line,
    results_table,
    unfinished_table,
)
from nnunet_semisup.document import Group, Heading, PageOnly, Part, Text, to_html, to_markdown

REFRESH_SECONDS = 60
Compared = Mapping[int, Mapping[str, Sequence[Line]]]
"""Lines by budget and class; of several classes their mean is first."""

NOTHING = "Nothing can be said yet: no run has finished."
HOW_TO_READ = (
    "Means over the evaluation cases, then over the seeds, with the standard deviation of the "
    "seeds. Difference: to the labeled cases alone at the same budget and with the same seeds, "
    "case by case, in points of Dice (0.01). Interval: 95 %, bootstrap (BCa) over the cases. p: "
    "Wilcoxon's signed-rank test, two-sided, corrected by Holm for the rows of the budget. "
    "Better, worse: cases. Lowest Dice: of the worst case."
)
DOTS = (
    "A dot a case. Gray: from the labeled cases alone, joined with the same case of the row, blue "
    "where the row is better, orange where it is worse. Cases stand in the order of the gray dots."
)
COST = (
    "Means over the seeds. s/step: the median epoch, its validation patches included. Hours: "
    "training and validation. Parameters: those of the network that is trained, and those kept "
    "beside it, over the stock trainer's. Operations: of the whole training, over that of the "
    "labeled cases alone; both as measured with the default settings, parts put into a plan's "
    "network not counted."
)
CURVES = (
    "Above: nnU-Net's pseudo-Dice on patches of the evaluation cases, gray from the labeled cases "
    "alone; nothing is chosen by it. Below: the training loss, with the method's own terms, and "
    "dotted the validation loss. A line a seed."
)


def write_report(folder: Path, published: str | None = None) -> Path:
    """Write ``report/{index.html,report.md,report.csv,report.json}`` from what is there.

    Args:
        folder: of the benchmark.
        published: data set whose published numbers are set beside; ``None``: none.

    Returns:
        Path of the page.

    Raises:
        UserError: no benchmark, or no published numbers under that name.
    """
    quoted = read_published(published) if published else None
    benchmark = collect(folder)
    compared = {
        budget: compare_rows(benchmark, budget)
        for budget in benchmark.design.budgets
        if benchmark.rows(budget)
    }
    parts = page_parts(benchmark, compared, quoted)
    refresh = REFRESH_SECONDS if benchmark.in_progress else 0
    target = folder / "report"
    target.mkdir(exist_ok=True)
    contents = {
        "index.html": to_html(f"Benchmark: {benchmark.design.dataset}", parts, refresh),
        "report.md": to_markdown(parts),
        "report.csv": to_csv(benchmark),
        "report.json": to_json(benchmark, compared, quoted),
    }
    for name, text in contents.items():
        with atomic_path(target / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return target / "index.html"


def page_parts(
    benchmark: Benchmark, compared: Compared, published: PublishedDataset | None
) -> list[Part]:
    """Return the page from top to bottom: the result, then what it rests on."""
    parts: list[Part] = [Heading(f"Benchmark: {benchmark.design.dataset}", 1)]
    parts += _progress(benchmark)
    first = {budget: next(iter(found.values())) for budget, found in compared.items()}
    parts += [Text(headline(benchmark, b, lines), "verdict") for b, lines in first.items()]
    if not first:
        parts.append(Text(NOTHING, "verdict"))
    for budget, found in compared.items():
        parts += _results(benchmark, budget, found)
    if first:
        parts.append(Text(HOW_TO_READ, "caption"))
        dots = [p for b, lines in first.items() for p in _dots(benchmark, b, lines)]
        parts.append(PageOnly(_section("All cases", dots, DOTS)))
    if published:
        parts += published_parts(published, first, benchmark.unit)
    costs = [p for b in first for p in _cost(benchmark, b)]
    curves = [p for b in first for p in _curves(benchmark, b)]
    cases = [p for b, lines in first.items() for p in case_pictures(benchmark, b, lines)]
    return [
        *parts,
        *_section("Cost", costs, COST),
        PageOnly(_section("Learning curves", curves, CURVES)),
        PageOnly(_section("Cases", cases)),
        *provenance(benchmark),
    ]


def _section(title: str, shown: Sequence[Part], caption: str = "") -> list[Part]:
    """Return a section, or nothing where there is nothing to show."""
    if not shown:
        return []
    return [Heading(title), *shown, *([Text(caption, "caption")] if caption else [])]


def _progress(benchmark: Benchmark) -> list[Part]:
    if not benchmark.missing:
        return []
    parts: list[Part] = [Text(progress_line(benchmark), "note")]
    unfinished = unfinished_table(benchmark)
    return [*parts, unfinished] if unfinished.rows else parts


def _results(benchmark: Benchmark, budget: int, found: Mapping[str, Sequence[Line]]) -> list[Part]:
    main, *classes = found
    lines = found[main]
    parts: list[Part] = [
        Heading(f"{budget} labeled, {benchmark.unlabeled(budget)} unlabeled cases")
    ]
    if sentences := explanation(lines):
        parts.append(Text(" ".join(sentences)))
    if classes:
        parts.append(Text(f"{main}:"))
    parts.append(results_table(lines, benchmark.unit))
    for name in classes:
        parts.append(Group([results_table(found[name], benchmark.unit)], title=name))
    others = differences_table(lines, benchmark.unit)
    if others.rows:
        parts.append(Group([others], title="Differences in the other metrics"))
    return parts


def _dots(benchmark: Benchmark, budget: int, lines: Sequence[Line]) -> list[Part]:
    return [*_at(benchmark, budget), Group(plot_cases(benchmark, budget, lines), "columns")]


def _cost(benchmark: Benchmark, budget: int) -> list[Part]:
    return [*_at(benchmark, budget), cost_table(benchmark, budget)]


def _curves(benchmark: Benchmark, budget: int) -> list[Part]:
    pictures = plot_trainings(benchmark, budget)
    return [*_at(benchmark, budget), Group(pictures, "grid")] if pictures else []


def _at(benchmark: Benchmark, budget: int) -> list[Part]:
    several = len(benchmark.design.budgets) > 1
    return [Heading(f"{budget} labeled cases", 3)] if several else []
