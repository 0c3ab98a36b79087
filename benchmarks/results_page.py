"""Write docs/results.md and the README's table from the reports of benchmarks.

    nnUNetv2_semisup_benchmark report FOLDER
    python benchmarks/results_page.py keep NAME FOLDER --title TITLE --plan "-d 501 ..."
    python benchmarks/results_page.py write

``keep`` copies a report's Markdown, and its numbers without the curves, into docs/results;
``write`` makes the pages from what is kept there. Reports of one title, made in several folders or
on several days, become one table where their data, steps and baseline are equal.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_semisup.benchmark.statistics import holm
from nnunet_semisup.evaluation.names import with_unit
from nnunet_semisup.evaluation.tables import format_table

ROOT = Path(__file__).parents[1]
KEPT = Path("docs", "results")
NAMESAKES = ("nnUNetTrainerVQSeg", "nnUNetTrainerTextSemiSeg")
BEST = 5
INTRO = """# Results

What `nnUNetv2_semisup_benchmark` measured, from the final weights, on cases that no training has
seen and no checkpoint was chosen on. One default was chosen on the left atrium's cases:
`unlabeled_weight` of SemiSup. Difference: to the labeled cases alone with equal steps, case by
case, in points of Dice (0.01), with a 95 % bootstrap interval; p: Wilcoxon's signed-rank test,
corrected by Holm for the rows of the table. Rows stand in the order of their Dice; the best of many
rows is the best by chance, too. The pages linked below have the cost, versions and file hashes.

Made by `python benchmarks/results_page.py write`. What else was measured, and controls of single
parts, is in [benchmarks.md](benchmarks.md).
"""


def keep(root: Path, name: str, folder: Path, title: str, plan: str) -> None:
    """Copy what the pages are made from out of a benchmark's report.

    Args:
        root: of the project.
        name: of the files.
        folder: of the benchmark.
        title: of its section.
        plan: arguments of ``nnUNetv2_semisup_benchmark plan FOLDER``.
    """
    target = root / KEPT
    target.mkdir(parents=True, exist_ok=True)
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    del report["design"]["raw"]
    states = [run["status"] for run in report["runs"]]
    kept = {
        "title": title,
        "plan": plan,
        "design": report["design"],
        "unit": report["unit"],
        "finished": states.count("finished"),
        "runs": len(states),
        "comparison": report["comparison"],
    }
    (target / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    (target / f"{name}.md").write_text(text, encoding="utf-8")


def pages(root: Path) -> dict[Path, str]:
    """Return path and content of docs/results.md and README.md, from what is kept."""
    by_title: dict[str, dict[str, Any]] = {}
    for file in sorted((root / KEPT).glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        by_title.setdefault(content["title"], {})[file.stem] = content
    kept = {min(reports): merged(reports) for reports in by_title.values()}
    sections = [_section(content) for content in kept.values()]
    readme = (root / "README.md").read_text(encoding="utf-8")
    first = kept["left_atrium"]
    table = _table(_chosen(_lines(first, first["design"]["budgets"][0])), first["unit"])
    return {
        root / "docs" / "results.md": "\n".join([INTRO, *sections]),
        root / "README.md": re.sub(
            r"(<!-- results -->\n).*?(<!-- /results -->)",
            lambda found: f"{found[1]}{table}\n{found[2]}",
            readme,
            flags=re.DOTALL,
        ),
    }


def merged(reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return one content of several reports of the same comparison, p corrected for all rows.

    Args:
        reports: contents by the names of their files.

    Raises:
        ValueError: data, steps or baselines are not equal, or a row is in two reports.
    """
    first, *others = reports.values()
    baseline = [line for line in first["comparison"] if not line["differences"]]
    lines = list(first["comparison"])
    for other in others:
        if _conditions(other) != _conditions(first):
            raise ValueError(f"{first['title']}: the designs are not equal")
        if [line for line in other["comparison"] if not line["differences"]] != baseline:
            raise ValueError(f"{first['title']}: the baselines are not equal")
        lines += [line for line in other["comparison"] if line["differences"]]
    _correct(lines)
    return {
        **first,
        "names": list(reports),
        "plans": list(dict.fromkeys(report["plan"] for report in reports.values())),
        "finished": sum(r["finished"] for r in reports.values()) - len(others) * len(baseline),
        "runs": sum(r["runs"] for r in reports.values()) - len(others) * len(baseline),
        "comparison": lines,
    }


def _conditions(content: dict[str, Any]) -> dict[str, Any]:
    """Return what two reports must share to be one table: all of the design but its rows."""
    return {key: value for key, value in content["design"].items() if key != "rows"}


def _correct(lines: list[dict[str, Any]]) -> None:
    """Correct each metric's p values by Holm, among the lines of a budget and class."""
    keys = [(line["labels"], line["class"]) for line in lines]
    if len(set(zip(keys, (line["row"] for line in lines), strict=True))) < len(lines):
        raise ValueError("a row is in two reports")
    for key in set(keys):
        changes = [line["differences"] for line, k in zip(lines, keys, strict=True) if k == key]
        changes = [change for change in changes if change]
        for metric in changes[0] if changes else ():
            found = (change[metric]["p_value"] for change in changes)
            values = holm([math.nan if p is None else p for p in found])
            for change, value in zip(changes, values, strict=True):
                change[metric]["corrected_p_value"] = value


def _section(content: dict[str, Any]) -> str:
    design = content["design"]
    commands = [_wrapped(f"nnUNetv2_semisup_benchmark plan FOLDER {p}") for p in content["plans"]]
    parts = [f"## {content['title']}\n", "```bash", *commands, "```\n"]
    pages = [f"[{name.replace('_', ' ')}](results/{name}.md)" for name in content["names"]]
    parts.append(
        f"{design['steps']:,} steps, seeds {', '.join(map(str, design['seeds']))}, "
        f"{len(design['evaluation'])} cases that measure"
        + (f"; {' x '.join(f'{s:g}' for s in design['spacing'])} mm" if design["spacing"] else "")
        + (f", features {'-'.join(map(str, design['features']))}" if design["features"] else "")
        + (", bfloat16 on a CPU" if design["bfloat16"] else "")
        + f". {content['finished']} of {content['runs']} runs have finished. "
        + f"Cost and versions: {', '.join(pages)}\n"
    )
    for budget in design["budgets"]:
        lines = _lines(content, budget)
        if lines:
            parts += [f"### {budget} labeled cases\n", _table(lines, content["unit"]), ""]
    return "\n".join(parts)


def _wrapped(command: str) -> str:
    lines = textwrap.wrap(command, 100, break_long_words=False, break_on_hyphens=False)
    return " \\\n    ".join(lines)


def _lines(content: dict[str, Any], budget: int) -> list[dict[str, Any]]:
    """Return a budget's rows by Dice, the best first; of several classes their mean."""
    lines = [line for line in content["comparison"] if line["labels"] == budget]
    lines = [line for line in lines if line["class"] == lines[0]["class"]]
    return sorted(lines, key=lambda line: -line["metrics"]["Dice"]["mean"])


def _chosen(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the best rows, the labels alone and the package's namesakes, in their order."""
    best = [line for line in lines if line["differences"]][:BEST]
    return [
        line
        for line in lines
        if line in best or not line["differences"] or line["row"] in NAMESAKES
    ]


def _table(lines: Sequence[dict[str, Any]], unit: str) -> str:
    header = ["trainer", "Dice", "difference", "95 % interval", "p", "better", "worse"]
    header += [with_unit(metric, unit) for metric in ("HD95", "ASD")] + ["lowest Dice"]
    return format_table(header, [_row(line) for line in lines], markdown=True)


def _row(line: dict[str, Any]) -> list[str]:
    metrics = line["metrics"]
    row = [line["row"].removeprefix("nnUNetTrainer"), f"{metrics['Dice']['mean']:.3f}"]
    if change := line["differences"].get("Dice"):
        row += [
            f"{100 * change['difference']:+.1f}",
            f"{100 * change['low']:+.1f} to {100 * change['high']:+.1f}",
            f"{change['corrected_p_value']:.3f}",
            str(change["better"]),
            str(change["worse"]),
        ]
    else:
        row += ["-"] * 5
    row += [f"{metrics[metric]['mean']:.2f}" for metric in ("HD95", "ASD")]
    return [*row, f"{line['worst_case']['Dice']:.3f}"]


def main() -> None:
    """Keep a report, or write the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    kept = commands.add_parser("keep")
    kept.add_argument("name")
    kept.add_argument("folder", type=Path)
    kept.add_argument("--title", required=True)
    kept.add_argument("--plan", required=True, help="arguments of the benchmark's plan")
    commands.add_parser("write")
    args = parser.parse_args()
    if args.command == "keep":
        keep(ROOT, args.name, args.folder, args.title, args.plan)
        return
    for path, text in pages(ROOT).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
