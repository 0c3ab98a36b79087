"""Checks that no result is better than it should be, before anything is trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.benchmark.design import Design, Layout
from nnunet_semisup.dataset_conversion.cases import CaseFacts, Subset
from nnunet_semisup.dataset_conversion.checking.all_cases import Duplicate, find_duplicates
from nnunet_semisup.dataset_conversion.checking.raw_dataset import read_cases
from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import DatasetFolders, bullet_list
from nnunet_semisup.preparation.rules import Accepted

FILE = "leaks.json"
BY_CONSTRUCTION = (
    "Each budget is a data set of its own: fingerprint and plans are made of its labeled cases "
    "before any other label is there, and labels of unlabeled cases are in no folder of it.",
    "Results are those of the final weights; no checkpoint, method or setting is chosen on the "
    "evaluation cases by this command.",
)


def check_leaks(
    layout: Layout,
    design: Design,
    folders: DatasetFolders,
    processes: int,
    left_out: Collection[str],
) -> list[str]:
    """Compare the images of all roles, and return what was found, in sentences, as it is kept.

    Args:
        layout: of the benchmark; the sentences go into :data:`FILE`.
        design: what is compared.
        folders: of the data set.
        processes: that read files.
        left_out: cases without a role.

    Raises:
        UserError: files that cannot be read, or one image among the evaluation cases and elsewhere.
    """
    findings = Findings()
    cases = read_cases(folders, processes, Accepted(True, True), findings, _SUBSETS)
    if cases is None or findings.faults:
        raise UserError(f"{folders.raw} has faults:\n{bullet_list(findings.faults)}")
    facts = _in_their_roles(cases.facts, design, left_out)
    compared = Findings()
    pairs = find_duplicates(facts, cases.form, {}, processes, compared)
    evaluated = set(design.evaluation)
    across = [pair for pair in pairs if len(evaluated & _names(pair)) == 1]
    copies = [pair for pair in across if _is_copy(pair, cases.form.dimensions)]
    if copies:
        names = sorted({name for pair in copies for name in _names(pair) - evaluated})
        raise UserError(
            "Evaluation cases are trained on under another name:\n"
            f"{bullet_list(pair.describe() for pair in copies)}\n"
            f"--leave-out {' '.join(names)} leaves their copies out."
        )
    doubts = [f"Look at both: {pair.describe()}." for pair in across]
    doubts += [f"The comparison has a limit: {warning}." for warning in compared.warnings]
    for doubt in doubts:
        print(f"note: {doubt}", file=sys.stderr)
    sentences = [
        f"{len(facts)} cases were compared voxel by voxel and by correlation: no evaluation case "
        "is a labeled or unlabeled one under another name"
        + (", but some look alike." if across else "."),
        *(
            f"{'Perhaps in' if pair.kind == 'acquisition' else 'In'} training twice: "
            f"{pair.describe()}."
            for pair in pairs
            if not _names(pair) & evaluated
        ),
        *doubts,
        *BY_CONSTRUCTION,
    ]
    layout.folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(layout.folder / FILE) as temporary:
        temporary.write_text(json.dumps(sentences, indent=1), encoding="utf-8")
    return sentences


def _in_their_roles(
    facts: Sequence[CaseFacts], design: Design, left_out: Collection[str]
) -> list[CaseFacts]:
    """Return the cases that have a role, those that measure as a subset of their own.

    Images that only look alike are searched across subsets, and the folders do not tell the cases
    of one of several folds apart.
    """
    trained, found = {*design.pool, *design.unlabeled}, []
    for one in facts:
        if one.case.id in design.evaluation:
            found.append(replace(one, case=replace(one.case, subset=Subset.VALIDATION)))
        elif one.case.id in trained:
            found.append(replace(one, case=replace(one.case, subset=Subset.LABELED)))
        elif one.case.subset is Subset.UNLABELED and one.case.id not in left_out:
            found.append(one)
    return found


def _is_copy(pair: Duplicate, dimensions: int) -> bool:
    """Return whether two images are one: equal, or scans that correlate voxel by voxel.

    Pictures are compared as thumbnails alone, and those of two patients can be as alike.
    """
    return pair.kind == "voxels" or (pair.kind == "acquisition" and dimensions == 3)


def _names(pair: Duplicate) -> set[str]:
    return {pair.first.case.id, pair.second.case.id}


_SUBSETS = (Subset.LABELED, Subset.UNLABELED)
