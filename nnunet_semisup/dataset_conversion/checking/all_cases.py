"""Checks over all cases together: the split against the disk, copies of one scan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from nnunet_semisup.dataset_conversion.cases import CaseFacts, DatasetForm, Subset
from nnunet_semisup.dataset_conversion.checking.duplicates import near_duplicates
from nnunet_semisup.dataset_conversion.checking.label_meaning import (
    contradictions,
    renumbered,
    silent_files,
    unknown_names,
)
from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.dataset_conversion.reading.label_names import listed
from nnunet_semisup.dataset_conversion.subsets import Split
from nnunet_semisup.parallel import map_cases
from nnunet_semisup.preparation.orientation import PlacedScan, axis_codes
from nnunet_semisup.preparation.rules import judge_foreground_of_all, spacing_fault

_SHOWN = 20
MOST_SIMILAR_LISTED = 10
"""Pairs that look alike and get a line each; of more there is one line for all."""


@dataclass(frozen=True)
class Duplicate:
    """Hold two cases that seem to be one: ``kind`` is ``voxels``, ``label`` or ``acquisition``.

    The first two are equal voxel for voxel, the last are images that correlate.
    """

    first: CaseFacts
    second: CaseFacts
    kind: str
    correlation: float

    @property
    def droppable(self) -> str | None:
        """Return the case to leave out: the unlabeled one, of two the later; else ``None``."""
        for facts in (self.second, self.first):
            if facts.case.subset is Subset.UNLABELED:
                return facts.case.id
        return None

    @property
    def leaks(self) -> bool:
        """Return whether equal images are in two subsets, which makes every result worthless.

        Equal labels of different images are no leak: a scan may be there in two exports, as in LA,
        or a label was saved under a second name.
        """
        return self.kind == "voxels" and self.first.case.subset != self.second.case.subset

    def to_json(self) -> dict[str, Any]:
        """Return the pair as it stands in the report."""
        return {
            "cases": [self.first.case.id, self.second.case.id],
            "subsets": [self.first.case.subset.value, self.second.case.subset.value],
            "kind": self.kind,
            "correlation": round(self.correlation, 4),
        }

    def describe(self) -> str:
        """Describe the pair in words."""
        cases = " and ".join(
            f"{facts.case.id} ({facts.case.subset.value})" for facts in (self.first, self.second)
        )
        return {
            "voxels": f"{cases} hold the same image, voxel for voxel",
            "label": f"{cases} hold the same label, voxel for voxel",
            "acquisition": (
                f"{cases} look like the same scan (correlation {self.correlation:.2f} after "
                "alignment)"
            ),
        }[self.kind]

    @property
    def advice(self) -> str:
        """Say what to do about the pair, with the options of the convert command."""
        if self.kind == "acquisition":
            if self.droppable:
                return f"compare them (--drop-duplicates would leave {self.droppable} out)"
            return "compare them, and leave one out if it is a copy"
        if self.droppable:
            return f"--drop-duplicates leaves {self.droppable} out"
        if self.kind == "label":
            return "compare their images: one scan may be there twice, or one label may be wrong"
        return "decide which one to keep and name the other in no list of the split"


def add_unlisted(split: Split, present: Collection[str], extra: str, findings: Findings) -> Split:
    """Decide on cases on disk that the split does not name.

    Args:
        split: what is named.
        present: the cases on disk.
        extra: ``ignore`` leaves them out with a warning, ``unlabeled`` adds them to the unlabeled
            cases, ``error`` makes them a fault.
        findings: where to put what is found.
    """
    named = split.subset_of().keys() | set(split.lists.left_out)
    unlisted = [case for case in present if case not in named]
    if not unlisted:
        return split
    text = f"{len(unlisted)} cases on disk are in no list of {split.lists.name}"
    shown = ", ".join(unlisted[:_SHOWN]) + (" ..." if len(unlisted) > _SHOWN else "")
    if extra == "unlabeled":
        findings.warnings.append(f"{text} and become unlabeled cases: {shown}")
        return split.with_unlabeled(unlisted)
    if extra == "error":
        advice = "--extra ignore leaves them out, --extra unlabeled uses them without labels"
        findings.faults.append(f"{text} ({shown}); {advice}")
    else:
        findings.warnings.append(f"{text} and are left out: {shown}")
    return split


def check_split(
    split: Split, present: Collection[str], allow_partial: bool, findings: Findings
) -> list[str]:
    """Compare the split with the cases on disk; returns those that are missing.

    Args:
        split: what is expected.
        present: the cases on disk.
        allow_partial: missing cases are a warning.
        findings: where to put what is wrong.
    """
    named = split.subset_of()
    on_disk = set(present)
    missing = [case for case in named if case not in on_disk]
    if missing:
        by_subset = "; ".join(
            f"{subset.value}: {', '.join(found)}"
            for subset in Subset
            if (found := [case for case in missing if named[case] is subset])
        )
        text = f"{len(missing)} of the {len(named)} cases of {split.lists.name} are not on disk"
        if allow_partial:
            findings.warnings.append(f"{text} ({by_subset})")
        else:
            findings.faults.append(f"{text} ({by_subset}); --allow-partial converts the others")
    if on_disk.isdisjoint(split.labeled):
        findings.faults.append(
            f"none of the {len(split.labeled)} labeled cases is on disk; add them, or name cases "
            "that are there"
        )
    if on_disk.isdisjoint(split.unlabeled):
        place = findings.warnings if allow_partial else findings.faults
        place.append(
            f"none of the {len(split.unlabeled)} unlabeled cases is on disk; add them, or name "
            "cases that are there"
            if split.unlabeled
            else "no case is left as unlabeled; give a smaller --labeled N, or add scans with "
            "--extra-unlabeled DIR"
        )
    return missing


def find_duplicates(
    facts: Sequence[CaseFacts],
    form: DatasetForm,
    patients: Mapping[str, str],
    num_processes: int,
    findings: Findings,
) -> list[Duplicate]:
    """Find every pair of cases with the same voxels, the same label, or of one acquisition.

    Args:
        facts: the cases.
        form: how to read their images.
        patients: by case, where it is known; two scans of one are alike for that reason and not
            searched for one acquisition.
        num_processes: processes that compare images, and threads.
        findings: is warned when not all pairs could be searched or compared.
    """
    readable = [f for f in facts if f.thumbnail is not None]
    exact = _equal_hashes(readable)
    known = {(d.first.case.id, d.second.case.id) for d in exact if d.kind == "voxels"}
    similar = near_duplicates(
        [f.thumbnail for f in readable if f.thumbnail is not None],
        [f.shown.path for f in readable],
        form.read_image,
        partial(map_cases, num_processes=num_processes, description="comparing"),
        [patients.get(f.case.id) for f in readable],
        [f.case.subset.value for f in readable],
        findings.warnings.append,
        num_processes,
    )
    found = [Duplicate(readable[i], readable[j], "acquisition", score) for i, j, score in similar]
    return exact + [d for d in found if (d.first.case.id, d.second.case.id) not in known]


def placed_scans(facts: Sequence[CaseFacts]) -> list[PlacedScan]:
    """Return where the axes of every case point that could be read."""
    return [
        PlacedScan(
            found.case.id, found.case.subset.image_folder, axis_codes(found.geometry.direction)
        )
        for found in facts
        if found.geometry
    ]


def spacing_outliers(facts: Sequence[CaseFacts]) -> list[tuple[Subset, str]]:
    """Find cases whose voxel size is about 10, 100 or 1000 times that of other training images."""
    spacings = {
        found.case.id: sorted(found.geometry.spacing)
        for found in facts
        if found.geometry and found.case.subset.image_folder == "imagesTr"
    }
    outliers = []
    for found in facts:
        others = [spacing for case, spacing in spacings.items() if case != found.case.id]
        if found.geometry and others:
            ranges = [(min(axis), max(axis)) for axis in zip(*others, strict=True)]
            if fault := spacing_fault(found.geometry.spacing, ranges):
                outliers.append((found.case.subset, f"case {found.case.id}: {fault}"))
    return outliers


def _equal_hashes(facts: Sequence[CaseFacts]) -> list[Duplicate]:
    """Find pairs whose first channel that shows anything, or label, is equal voxel for voxel."""
    groups: defaultdict[tuple[str, str], list[CaseFacts]] = defaultdict(list)
    for found in facts:
        groups["voxels", found.shown.voxels_sha256].append(found)
        if found.label is not None and any(found.label_counts.keys() - {0}):
            groups["label", found.label.voxels_sha256].append(found)
    return [
        Duplicate(group[0], other, kind, 1.0)
        for (kind, _), group in groups.items()
        for other in group[1:]
    ]


def judge_duplicates(duplicates: Sequence[Duplicate], drop: bool, findings: Findings) -> list[str]:
    """Turn pairs into faults and warnings; returns the cases to leave out.

    Equal images in two subsets are a fault, everything else is a warning. With ``drop`` the
    unlabeled case of a pair is left out instead.
    """
    dropped: list[str] = []
    similar: list[str] = []
    for pair in duplicates:
        if {pair.first.case.id, pair.second.case.id} & set(dropped):
            continue
        unlabeled = pair.droppable if drop else None
        text = f"{pair.describe()}; {f'{unlabeled} is left out' if unlabeled else pair.advice}"
        if unlabeled:
            dropped.append(unlabeled)
        if pair.kind == "acquisition":
            similar.append(text)
        else:
            (findings.faults if pair.leaks and not unlabeled else findings.warnings).append(text)
    if len(similar) <= MOST_SIMILAR_LISTED:
        findings.warnings += similar
    else:
        alike = [pair for pair in duplicates if pair.kind == "acquisition"]
        what = "are left out" if drop else "would be left out by --drop-duplicates"
        findings.warnings.append(
            f"{describe_many(alike)}; compare them. {_to_leave_out(alike)} unlabeled cases {what}. "
            "The report lists all pairs under 'duplicates'"
        )
    return dropped


def _to_leave_out(duplicates: Sequence[Duplicate]) -> int:
    """Return how many cases ``--drop-duplicates`` leaves out on account of these pairs."""
    left_out: set[str] = set()
    for pair in duplicates:
        if pair.droppable and left_out.isdisjoint((pair.first.case.id, pair.second.case.id)):
            left_out.add(pair.droppable)
    return len(left_out)


def describe_many(pairs: Sequence[Duplicate]) -> str:
    """Describe pairs that look alike in one phrase."""
    scores = [pair.correlation for pair in pairs]
    return (
        f"{len(pairs)} pairs of cases look like the same scan (correlation {min(scores):.2f} to "
        f"{max(scores):.2f} after alignment)"
    )


def check_unlabeled_left(
    facts: Sequence[CaseFacts],
    dropped: Collection[str],
    duplicates: Sequence[Duplicate],
    findings: Findings,
) -> None:
    """Make it a fault that every unlabeled case is dropped as a duplicate of another."""
    unlabeled = {found.case.id for found in facts if found.case.subset is Subset.UNLABELED}
    if not unlabeled or not unlabeled <= set(dropped):
        return
    pairs = [pair.describe() for pair in duplicates if pair.droppable in unlabeled]
    more = f"; and {len(pairs) - _SHOWN} more pairs" if len(pairs) > _SHOWN else ""
    findings.faults.append(
        f"--drop-duplicates would leave out every unlabeled case ({len(unlabeled)}): "
        f"{'; '.join(pairs[:_SHOWN])}{more}. Compare them: leave the option out if they are "
        "different scans, or add others with --extra-unlabeled DIR"
    )


def compare_names(facts: Sequence[CaseFacts], form: DatasetForm, findings: Findings) -> None:
    """Compare the names that label files give their values, between cases and with the labels.

    Args:
        facts: the cases.
        form: its ``label_choices`` say whether names moved values or are only compared.
        findings: gets what contradicts, and what nobody can tell.
    """
    told = {found.case.id: found for found in facts if found.meaning is not None}
    taken = {case: found.meaning.taken_by_number for case, found in told.items() if found.meaning}
    findings.faults += contradictions(taken)
    names = {case: found.label_names for case, found in told.items()}
    if form.label_choices is None:
        unknown = [
            f"{case} ({', '.join(sorted(own))})"
            for case, there in names.items()
            if (own := unknown_names(there, there, form.labels))
        ]
        if unknown:
            findings.warnings.append(
                f"{len(unknown)} label files have names that no label of the data set has: "
                f"{listed(unknown)}. Check that they mean the same"
            )
        return
    maps = {case: found.meaning.label_map for case, found in told.items() if found.meaning}
    by_hand = any(isinstance(choice, int) for choice in form.label_choices)
    silent = None if by_hand else silent_files(names, maps, form.label_map)
    findings.warnings += filter(None, (renumbered(names, maps, form.label_map), silent))


def absent_labels(facts: Sequence[CaseFacts], form: DatasetForm) -> list[str]:
    """Name labels that are declared but occur in no labeled case.

    Nothing is said while a label cannot be read, since that may be the one.
    """
    training = [found for found in facts if found.case.subset is Subset.LABELED]
    if not all(found.label_counts for found in training):
        return []
    known = {value for found in training for value in found.label_counts}
    elsewhere = {value for found in facts for value in found.label_counts} - known
    texts = []
    for name, value in form.labels.items():
        values = set(value) if isinstance(value, (tuple, list)) else {value}
        if name == "ignore" or 0 in values or values & known:
            continue
        numbers = ", ".join(map(str, sorted(values)))
        what = f"no training label contains {name} (value{'s' * (len(values) > 1)} {numbers})"
        found_in = "it occurs in validation or test labels only, so it cannot be learned"
        texts.append(f"{what}; {found_in if values & elsewhere else form.absent_label_advice}")
    return texts


def nothing_labeled(facts: Sequence[CaseFacts], form: DatasetForm) -> list[str]:
    """Return faults where no labeled case has foreground, ``--allow-empty`` or not.

    Nothing is said while a label cannot be read, since that may be the one.
    """
    labeled = [found for found in facts if found.case.subset is Subset.LABELED]
    if not all(found.label_counts for found in labeled):
        return []
    ignored = form.labels.get("ignore")
    return judge_foreground_of_all(
        {found.case.id: found.label_counts for found in labeled},
        ignored if isinstance(ignored, int) else None,
    )
