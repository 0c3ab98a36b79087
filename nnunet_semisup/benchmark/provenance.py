"""Say how a benchmark was done: data, checks, versions, files and commands."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence

from nnunet_semisup.benchmark import leaks
from nnunet_semisup.benchmark.collect import Benchmark, Result
from nnunet_semisup.benchmark.design import FILE, Run
from nnunet_semisup.benchmark.record import Record
from nnunet_semisup.document import Code, Group, Heading, Listing, PageOnly, Part, Table, Text


def provenance(benchmark: Benchmark) -> list[Part]:
    """Return the section from which somebody else can repeat the benchmark."""
    design = benchmark.design
    content = benchmark.layout.design.read_bytes()
    parts: list[Part] = [
        Heading("How it was done"),
        Text(_setup(benchmark)),
        Heading("Leak checks", 3),
        _leaks(benchmark),
        Heading("Labeled cases", 3),
        Text(f"A budget of N takes the first N of this order. Its source: {design.order}."),
        Listing(
            [
                f"{budget} labeled, {benchmark.unlabeled(budget)} unlabeled: "
                f"{', '.join(design.labeled(budget))}"
                for budget in design.budgets
            ]
        ),
        Text(f"Evaluated on {len(design.evaluation)} cases: {', '.join(design.evaluation)}."),
        *([Text(f"Left out: {', '.join(design.left_out)}.")] if design.left_out else []),
        Heading("Versions, machines and files", 3),
        Text(f"{FILE}: SHA-256 {hashlib.sha256(content).hexdigest()}."),
        _facts(benchmark.results),
        *_commands(benchmark.records),
    ]
    return parts


def _setup(benchmark: Benchmark) -> str:
    design = benchmark.design
    changed = [
        f"at {' x '.join(f'{s:g}' for s in design.spacing)} mm" if design.spacing else "",
        f"with {'-'.join(map(str, design.features))} features" if design.features else "",
        f"for {design.gpu_memory:g} GB of GPU memory" if design.gpu_memory else "",
        "in bfloat16" if design.bfloat16 else "",
    ]
    told = ", ".join(word for word in changed if word)
    return (
        f"{design.dataset}, {design.configuration}, {design.planner}{f', {told}' if told else ''}. "
        f"{design.steps} steps of each row unless its name says otherwise, "
        f"{design.steps_per_epoch} an epoch; seeds {', '.join(map(str, design.seeds))}. "
        "Measured are the final weights on "
        "cases that no training saw; no checkpoint was chosen by them."
    )


def _leaks(benchmark: Benchmark) -> Part:
    if benchmark.leaks is None:
        return Text(f"No outcome of the leak checks is recorded ({leaks.FILE} is missing).", "note")
    if not benchmark.leaks:
        return Text("The checks before the runs found nothing.")
    return Listing(benchmark.leaks)


def _facts(results: Sequence[Result]) -> Part:
    """Return each fact once, with the runs that it holds for where they differ."""
    if not results:
        return Text("No run has finished.")
    rows: list[list[object]] = []
    for kind in ("versions", "hashes"):
        told: Mapping[str, list[tuple[str, Run]]] = {}
        for result in results:
            for name, value in getattr(result.record, kind).items():
                told = {**told, name: [*told.get(name, []), (str(value), result.run)]}
        for name, values in told.items():
            rows += [[name, value, runs] for value, runs in _grouped(values, len(results))]
    machines = [(r.record.machine, r.run) for r in results if r.record.machine]
    rows += [["machine", value, runs] for value, runs in _grouped(machines, len(results))]
    if not rows:
        return Text("The runs have recorded neither versions nor files.")
    return Table(["what", "which", "runs"], rows)


def _grouped(values: Iterable[tuple[str, Run]], total: int) -> list[tuple[str, str]]:
    found: dict[str, list[Run]] = {}
    for value, run in values:
        found.setdefault(value, []).append(run)
    return [(value, _named(runs, total)) for value, runs in found.items()]


def _named(runs: Sequence[Run], total: int) -> str:
    """Return which runs a fact holds for: all, those of some budgets, or their number."""
    if len(runs) == total:
        return "all"
    budgets = sorted({run.budget for run in runs})
    return f"{len(runs)}, with {', '.join(map(str, budgets))} labels"


def _commands(records: Mapping[Run, Record]) -> list[Part]:
    """Return what was typed for each run that was started."""
    parts: list[Part] = []
    for run, record in records.items():
        if record.commands:
            given = [f"export {name}={shlex.quote(v)}" for name, v in record.environment.items()]
            parts.append(Group([Code("\n".join([*given, *record.commands]))], title=run.title))
    if not parts:
        return []
    folded = Group(parts, title=f"Commands of {len(parts)} runs")
    return [PageOnly([Heading("Commands", 3), folded])]
