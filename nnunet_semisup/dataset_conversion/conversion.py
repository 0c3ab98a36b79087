"""The course of every conversion: collect, verify everything, then write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_semisup.dataset_conversion.cases import Case, CaseFacts, DatasetForm, SourceFiles
from nnunet_semisup.dataset_conversion.checking.all_cases import (
    Duplicate,
    absent_labels,
    add_unlisted,
    check_split,
    check_unlabeled_left,
    compare_names,
    find_duplicates,
    judge_duplicates,
    nothing_labeled,
    placed_scans,
    spacing_outliers,
)
from nnunet_semisup.dataset_conversion.checking.one_case import inspect_case
from nnunet_semisup.dataset_conversion.checking.outliers import unlike_the_others
from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.dataset_conversion.offers import EXTRA, LINKS
from nnunet_semisup.dataset_conversion.reading.scans import TrustingAffine
from nnunet_semisup.dataset_conversion.subsets import Split
from nnunet_semisup.dataset_conversion.writing.conversion_record import build_report, summary
from nnunet_semisup.dataset_conversion.writing.dataset_writer import write_cases, write_dataset_json
from nnunet_semisup.dataset_conversion.writing.target import REPORT, STATE, Target, list_files
from nnunet_semisup.dataset_conversion.writing.volume_files import write_text
from nnunet_semisup.errors import UserError
from nnunet_semisup.headers.nifti import contradicting_headers
from nnunet_semisup.parallel import map_cases
from nnunet_semisup.preparation.orientation import common_axes, turned_scans, turned_warning
from nnunet_semisup.preparation.rules import Accepted


@dataclass(frozen=True)
class Options:
    """Hold what the user may decide for every data set; the command line documents each.

    ``command`` is the command line itself, for the report.
    """

    dataset_id: int
    name: str
    keep_hidden_labels: bool = False
    drop_duplicates: bool = False
    extra: str = "ignore"
    allow_partial: bool = False
    allow_empty: bool = False
    allow_constant_channels: bool = False
    trust_affine: bool = False
    reorient: bool = False
    overwrite: bool = False
    dry_run: bool = False
    link: str = "copy"
    num_processes: int = 1
    report: Path | None = None
    command: tuple[str, ...] = ()

    @property
    def accepted(self) -> Accepted:
        """Return what the checks of single cases let pass."""
        return Accepted(self.allow_constant_channels, self.allow_empty)


@dataclass
class Collected:
    """Hold what a data set's own code found on disk, by case, and what it has to say about it.

    ``unlabeled`` are images that no split names and that have no label to be read; see
    :meth:`add_unlabeled`.
    """

    root: Path
    cases: dict[str, SourceFiles]
    findings: Findings = field(default_factory=Findings)
    unlabeled: dict[str, SourceFiles] = field(default_factory=dict)

    def all_images_end(self, ending: str) -> bool:
        """Return whether every image file that is used has this ending."""
        used = (*self.cases.values(), *self.unlabeled.values())
        return all(path.name.endswith(ending) for files in used for path in files.images)

    def add_unlabeled(self, other: Collected) -> None:
        """Take the images of ``other`` as unlabeled cases, whatever labels lie beside them."""
        for case, files in other.cases.items():
            known = self.cases.get(case) or self.unlabeled.get(case)
            if known is not None and known.images[0].samefile(files.images[0]):
                if case in self.cases:
                    self.findings.faults.append(
                        f"case {case}: {files.images[0]} is named by --extra-unlabeled, but it is "
                        "used already; a file has one use. Leave it out of --extra-unlabeled"
                    )
            elif known is not None:
                self.findings.faults.append(
                    f"case {case}: {files.images[0]} is meant as an unlabeled case, but "
                    f"{known.images[0]} has the same name. Rename one if they are different "
                    "scans; remove one if they are copies."
                )
            else:
                self.unlabeled[case] = SourceFiles(files.images, None)
        self.findings.faults += other.findings.faults
        self.findings.warnings += other.findings.warnings


@dataclass(frozen=True)
class Prepared:
    """Hold what a data set's own code hands to :func:`convert`."""

    collected: Collected
    split: Split
    form: DatasetForm


def convert(
    collected: Collected, split: Split, form: DatasetForm, options: Options
) -> dict[str, Any]:
    """Verify every case and write the data set below ``nnUNet_raw``.

    Args:
        collected: the cases on disk.
        split: the cases' subsets.
        form: what is particular to the data set.
        options: the user's decisions.

    Returns:
        The content of ``conversion_report.json``.

    Raises:
        UserError: anything is wrong with the input or the target. Nothing was written, unless
            the disk failed while writing; then the same command continues.
    """
    _check_options(form, options)
    if options.trust_affine:
        trusting = (TrustingAffine(form.read_image), TrustingAffine(form.read_label))
        form = replace(form, read_image=trusting[0], read_label=trusting[1])
    target = Target(options.dataset_id, options.name)
    if not options.dry_run:
        target.finish_interrupted()
    Findings(target.faults(options.overwrite)).raise_faults(f"{target.folder} cannot be written:")
    findings = collected.findings
    split = add_unlisted(split, collected.cases, options.extra, findings)
    split = split.with_unlabeled(_unnamed(collected, split))
    present = {**collected.cases, **collected.unlabeled}
    missing = check_split(split, present, options.allow_partial, findings)
    facts = _verify(collected, split, form, options)
    patients = split.lists.groups
    duplicates = find_duplicates(facts, form, patients, options.num_processes, findings)
    dropped = judge_duplicates(duplicates, options.drop_duplicates, findings)
    check_unlabeled_left(facts, dropped, duplicates, findings)
    findings.raise_faults(f"{collected.root} cannot be converted to {target.folder}:")

    facts = [f for f in facts if f.case.id not in dropped]
    turned = _turn(facts, options.reorient)
    settings = _settings(collected, split, form, options)
    fingerprint = _fingerprint(settings, facts)
    target.check_unfinished(fingerprint, options.overwrite)
    report = build_report(form, split, facts, settings)
    report["command"] = list(options.command)
    report |= _notes(missing, duplicates, dropped, findings) | turned
    if not options.dry_run:
        _write(target, fingerprint, facts, split, form, options, report)
    if options.report is not None:
        write_text(_dump(report), options.report.absolute())
    print(summary(report, target.folder, options.dry_run))
    return report


def _turn(facts: list[CaseFacts], reorient: bool) -> dict[str, Any]:
    """Bring all scans to one order of axes if that is asked for; returns what the report says.

    Args:
        facts: the cases that are written; those that must be turned are told so.
        reorient: whether to turn any.
    """
    scans = placed_scans(facts)
    if not reorient:
        return {}
    turned = {scan.case: scan.axes for scan in turned_scans(scans)}
    for found in facts:
        found.turned_to = common_axes(scans) if found.case.id in turned else ""
    return {"reoriented": {"axes": common_axes(scans), "cases": turned}}


def _check_options(form: DatasetForm, options: Options) -> None:
    """Refuse options that cannot be met, before any file is read."""
    if options.num_processes < 1:
        raise UserError(f"-np {options.num_processes} is not possible; give 1 or more.")
    if options.link not in LINKS:
        raise UserError(f"--link {options.link} is unknown; give one of {', '.join(LINKS)}.")
    if options.link != "copy" and not form.images_ready:
        raise UserError(
            f"--link {options.link} is not possible: the files of {form.name} ({form.source}) "
            f"must be rewritten as {form.file_ending}. Leave --link out."
        )
    if options.link != "copy" and options.reorient:
        raise UserError(
            f"--link {options.link} and --reorient exclude each other: turned files must be "
            "written. Leave one out."
        )
    if options.reorient and form.dimensions == 2:
        raise UserError("--reorient is for scans; pictures have no orientation. Leave it out.")
    if options.extra not in EXTRA:
        raise UserError(f"--extra {options.extra} is unknown; give one of {', '.join(EXTRA)}.")
    if options.report is not None and not options.report.absolute().parent.is_dir():
        raise UserError(
            f"--report {options.report}: the folder {options.report.absolute().parent} does not "
            "exist; create it first."
        )


def _unnamed(collected: Collected, split: Split) -> list[str]:
    """Return the further unlabeled images; one that the split names is a fault."""
    named = split.subset_of()
    for case, files in collected.unlabeled.items():
        if case in named:
            collected.findings.faults.append(
                f"case {case}: {files.images[0]} is meant as an unlabeled case, but "
                f"{split.lists.name} names it as {named[case].value}; leave it out"
            )
    return [case for case in collected.unlabeled if case not in named]


def _verify(
    collected: Collected, split: Split, form: DatasetForm, options: Options
) -> list[CaseFacts]:
    """Read every case that is on disk, in the split's order, and add what is wrong."""
    on_disk = {**collected.unlabeled, **collected.cases}
    cases = _cases(on_disk, split, options.keep_hidden_labels)
    inspect = partial(inspect_case, form=form, accepted=options.accepted)
    names = [case.id for case in cases]
    facts = map_cases(inspect, cases, names, options.num_processes, "verifying")
    for found in facts:
        name = f"case {found.case.id}"
        collected.findings.faults += [f"{name}: {text}" for text in found.faults]
        collected.findings.warnings += [f"{name}: {text}" for text in found.warnings]
    files = [file.path for found in facts for file in (*found.images, found.label) if file]
    # A channel of a file is named by a path below it.
    read = list(dict.fromkeys(p.parent if p.parent.is_file() else p for p in files))
    if contradiction := contradicting_headers(read):
        collected.findings.warnings.append(contradiction)
    collected.findings.warnings += [text for _, text in spacing_outliers(facts)]
    advice = "--reorient brings all to one order, without resampling"
    if not options.reorient and (turned := turned_warning(placed_scans(facts), advice)):
        collected.findings.warnings.append(turned)
    collected.findings.warnings += absent_labels(facts, form)
    collected.findings.warnings += unlike_the_others(facts, form)
    collected.findings.faults += nothing_labeled(facts, form)
    compare_names(facts, form, collected.findings)
    return facts


def _cases(found: Mapping[str, SourceFiles], split: Split, keep_hidden: bool) -> list[Case]:
    """Return the cases to convert; hidden labels are not even named unless they are to be kept."""
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
    """Return all that decides the result's bytes, apart from the sources' content."""
    return {
        "dataset": form.name,
        "source": form.source,
        "raw_dir": str(collected.root.absolute()),
        "dataset_id": options.dataset_id,
        "name": options.name,
        "split": {"name": split.lists.name, "sha256": split.lists.sha256},
        "labeled": list(split.labeled),
        "further_unlabeled": list(collected.unlabeled),
        "left_out": list(split.lists.left_out),
        "extra": options.extra,
        "keep_hidden_labels": options.keep_hidden_labels,
        "drop_duplicates": options.drop_duplicates,
        "allow_partial": options.allow_partial,
        "allow_empty": options.allow_empty,
        "allow_constant_channels": options.allow_constant_channels,
        "reorient": options.reorient,
        "link": options.link,
        "assumptions": dict(form.assumptions),
        **({"trust_affine": True} if options.trust_affine else {}),
    }


def _fingerprint(settings: Mapping[str, Any], facts: list[CaseFacts]) -> str:
    """Hash of settings and sources; equal for a command and its repetition."""
    sources = [
        [f.case.id, *(file.sha256 for file in f.images), f.label.sha256 if f.label else ""]
        for f in facts
    ]
    content = json.dumps([settings, sources], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _notes(
    missing: list[str], duplicates: list[Duplicate], dropped: list[str], findings: Findings
) -> dict[str, Any]:
    """Return what the report says about the data set as a whole."""
    return {
        "missing": missing,
        "duplicates": [pair.to_json() for pair in duplicates],
        "dropped": dropped,
        "warnings": findings.warnings,
    }


def _write(
    target: Target,
    fingerprint: str,
    facts: list[CaseFacts],
    split: Split,
    form: DatasetForm,
    options: Options,
    report: dict[str, Any],
) -> None:
    """Write the data set to the unfinished folder and put it in place, if it is still free."""
    with target.lock():
        title = f"{target.folder} cannot be written:"
        Findings(target.faults(options.overwrite)).raise_faults(title)
        target.check_unfinished(fingerprint, options.overwrite)
        if target.open(fingerprint):
            print(f"continuing the unfinished conversion in {target.staging}")
        write_cases(facts, form, target.staging, options.num_processes, options.link)
        write_dataset_json(target.staging, form, split, facts)
        own = {STATE, REPORT}
        report["files"] = [name for name in list_files(target.staging) if name not in own]
        write_text(_dump(report), target.staging / REPORT)
        target.close()


def _dump(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=2) + "\n"
