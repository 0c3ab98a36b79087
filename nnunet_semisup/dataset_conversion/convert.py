"""The course of every conversion: collect, verify everything, then write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_semisup.dataset_conversion.cases import Case, DatasetForm, Subset
from nnunet_semisup.dataset_conversion.consistency import check_cases
from nnunet_semisup.dataset_conversion.report import build_report, summary
from nnunet_semisup.dataset_conversion.splits import Split
from nnunet_semisup.dataset_conversion.target import REPORT, Target, list_files
from nnunet_semisup.dataset_conversion.verify import CaseFacts, inspect_case, raise_faults
from nnunet_semisup.dataset_conversion.volume import write_text
from nnunet_semisup.dataset_conversion.write import (
    parallel_map,
    write_cases,
    write_dataset_json,
)


@dataclass(frozen=True)
class Options:
    """What the user may decide for every data set; the command line documents each."""

    dataset_id: int
    name: str
    keep_hidden_labels: bool = False
    drop_duplicates: bool = False
    allow_partial: bool = False
    allow_empty: bool = False
    overwrite: bool = False
    dry_run: bool = False
    num_processes: int = 1
    report: Path | None = None


@dataclass(frozen=True)
class SourceFiles:
    """The files of one case on disk, whatever its subset."""

    images: tuple[Path, ...]
    label: Path | None


@dataclass
class Collected:
    """What a data set's own code found on disk, by case, and what it has to say about it."""

    root: Path
    cases: dict[str, SourceFiles]
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def convert(
    collected: Collected, split: Split, form: DatasetForm, options: Options
) -> dict[str, Any]:
    """Verify every case and write the data set; returns the report.

    Raises:
        UserError: anything is wrong with the input or the target; nothing was written.
    """
    target = Target(options.dataset_id, options.name)
    faults, warnings = list(collected.faults), list(collected.warnings)
    missing = _check_split(collected, split, options, faults, warnings)
    cases = _cases(collected.cases, split, options.keep_hidden_labels)
    inspect = partial(inspect_case, form=form, allow_empty=options.allow_empty)
    facts = parallel_map(inspect, cases, options.num_processes, "verifying")
    dropped = check_cases(facts, options.drop_duplicates, faults, warnings)
    raise_faults(f"{collected.root} cannot be converted", faults)
    facts = [f for f in facts if f.case.id not in dropped]
    settings = _settings(collected, split, form, options)
    fingerprint = _fingerprint(settings, facts)
    target.check(fingerprint, options.overwrite)
    report = build_report(form, split, facts, settings)
    report |= {"missing": missing, "dropped": dropped, "warnings": warnings}
    if not options.dry_run:
        _write(target, fingerprint, facts, split, form, options, report)
    if options.report is not None:
        write_text(_dump(report), options.report.absolute())
    print(summary(report, target.folder, options.dry_run))
    return report


def _check_split(
    collected: Collected,
    split: Split,
    options: Options,
    faults: list[str],
    warnings: list[str],
) -> list[str]:
    """Compare the split with the disk; returns the cases that are missing."""
    named = split.subset_of()
    missing = [case for case in named if case not in collected.cases]
    extra = [case for case in collected.cases if case not in named]
    if missing:
        by_subset = "; ".join(
            f"{subset.value}: {', '.join(found)}"
            for subset in Subset
            if (found := [case for case in missing if named[case] is subset])
        )
        text = f"{len(missing)} of the {len(named)} cases of {split.lists.name} are missing ({by_subset})"
        if options.allow_partial:
            warnings.append(text)
        else:
            faults.append(f"{text}; --allow-partial converts the others")
    if extra:
        warnings.append(
            f"{len(extra)} cases on disk are in no list and are left out: {', '.join(extra)}"
        )
    for subset, needed in ((Subset.LABELED, split.labeled), (Subset.UNLABELED, split.unlabeled)):
        if needed and not any(case in collected.cases for case in needed):
            faults.append(f"none of the {len(needed)} {subset.value} cases is on disk")
    return missing


def _cases(found: Mapping[str, SourceFiles], split: Split, keep_hidden: bool) -> list[Case]:
    """The cases to convert, in the split's order."""
    return [
        Case(
            id=case,
            subset=subset,
            images=found[case].images,
            label=found[case].label if subset.needs_label or keep_hidden else None,
        )
        for case, subset in split.subset_of().items()
        if case in found
    ]


def _settings(
    collected: Collected, split: Split, form: DatasetForm, options: Options
) -> dict[str, Any]:
    """Everything that decides the result's bytes, apart from the sources' content."""
    return {
        "dataset": form.name,
        "source": form.source,
        "raw_dir": str(collected.root.absolute()),
        "dataset_id": options.dataset_id,
        "name": options.name,
        "split": {"name": split.lists.name, "sha256": split.lists.sha256},
        "labeled": list(split.labeled),
        "keep_hidden_labels": options.keep_hidden_labels,
        "drop_duplicates": options.drop_duplicates,
        "allow_partial": options.allow_partial,
        "allow_empty": options.allow_empty,
        "assumptions": dict(form.assumptions),
    }


def _fingerprint(settings: Mapping[str, Any], facts: list[CaseFacts]) -> str:
    """Hash of settings and sources; equal for a command and its repetition."""
    sources = [
        [f.case.id, *(file.sha256 for file in f.images), f.label.sha256 if f.label else ""]
        for f in facts
    ]
    content = json.dumps([settings, sources], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _write(
    target: Target,
    fingerprint: str,
    facts: list[CaseFacts],
    split: Split,
    form: DatasetForm,
    options: Options,
    report: dict[str, Any],
) -> None:
    """Write the data set to the unfinished folder and put it in place."""
    if target.open(fingerprint):
        print(f"continuing the unfinished conversion in {target.staging}")
    write_cases(facts, form, target.staging, options.num_processes)
    write_dataset_json(target.staging, form, split, facts)
    report["files"] = [
        name for name in list_files(target.staging) if not name.startswith("conversion_")
    ]
    write_text(_dump(report), target.staging / REPORT)
    target.close()


def _dump(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=2) + "\n"
