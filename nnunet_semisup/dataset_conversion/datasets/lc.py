"""LC, the lung carcinoma CT of VQ-Seg: a generic converter, because no layout is published.

VQ-Seg, NeurIPS 2025, arXiv 2601.10124, names 828 CT scans. Neither the scans nor a list of cases,
a file format or a split could be had, so everything here is an assumption and says so.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from nnunet_semisup.dataset_conversion.cases import SourceFiles
from nnunet_semisup.dataset_conversion.conversion import Collected, Prepared
from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.dataset_conversion.generic import converter as generic
from nnunet_semisup.dataset_conversion.generic.collect import (
    IMAGE_FOLDERS,
    Found,
    add_own_unlabeled,
    collect,
    unlabeled_folders,
)
from nnunet_semisup.dataset_conversion.generic.files import Naming, images_in, labels_in, match
from nnunet_semisup.dataset_conversion.generic.split import (
    BY_LABELS,
    Request,
    draw,
    finish,
    group_cases,
)
from nnunet_semisup.dataset_conversion.shared_options import need_folder
from nnunet_semisup.dataset_conversion.subsets import Split, SplitLists
from nnunet_semisup.dataset_conversion.writing.target import read_json
from nnunet_semisup.errors import UserError

EXPECTED_CASES = 828
_LABELS = "background,carcinoma"
_IMAGE_GLOB = "image.*|ct.*"
_LABEL_GLOB = "label.*|mask.*|seg.*"
_PNG_FOLDERS = {
    "labeled": "train-label",
    "unlabeled": "train-unlabel",
    "validation": "val",
    "test": "test",
}
_PNG_PATIENT = "^([^_]+)"
_SHARES = {"validation": 0.1, "test": 0.2}
_STATEMENT = """\
*** LC has no public download and no published list of cases. The layout of your files is assumed,
*** not known, and so are the label values and the split. Results on this split are NOT comparable
*** with the numbers of the paper. See docs/datasets/lc.md."""


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Prepare the cases, their subsets and their form, as the command line asks for."""
    need_folder(arguments.raw_dir, "give the one with your images and labels")
    print(_STATEMENT)
    if arguments.label_names is None and arguments.labels_json is None:
        arguments.label_names = _LABELS
    if (arguments.raw_dir / _PNG_FOLDERS["labeled"] / "image").is_dir():
        prepared = _prepare_png(arguments)
    else:
        prepared = _prepare_scans(arguments)
    number = len(prepared.collected.cases) + len(prepared.collected.unlabeled)
    if number != EXPECTED_CASES:
        prepared.collected.findings.warnings.append(
            f"there are {number} cases; the paper names {EXPECTED_CASES}"
        )
    form = replace(
        prepared.form,
        description="LC of VQ-Seg (arXiv 2601.10124); layout, labels and split are assumed.",
        reference="VQ-Seg, NeurIPS 2025, arXiv 2601.10124",
        licence="unknown; treat as private",
        assumptions={**prepared.form.assumptions, "layout": "assumed, none is published"},
    )
    return replace(prepared, form=form)


def _prepare_scans(arguments: argparse.Namespace) -> Prepared:
    """Prepare scans in one folder or with a folder each; the split must be said."""
    if arguments.split == BY_LABELS:
        raise UserError(
            "no split of LC is published, so say which one is meant: --split seed:42 (patients "
            "drawn at random, 70 % training, 10 % validation, 20 % test) or --split FILE.json."
        )
    flat = arguments.images or any((arguments.raw_dir / name).is_dir() for name in IMAGE_FOLDERS)
    if not arguments.image_glob and not flat:
        arguments.image_glob = _IMAGE_GLOB
        arguments.label_glob = arguments.label_glob or _LABEL_GLOB
    if arguments.channel_names is None:
        arguments.channel_names = "CT"
    found = collect(arguments)
    content = read_json(arguments.raw_dir / "dataset.json")
    if not re.fullmatch(r"seed:\d{1,9}", arguments.split):
        return generic.prepare_found(arguments, found, content)
    try:
        split = _drawn(arguments, found)
        form = generic.make_form(arguments, found, content, split)
    except UserError:
        found.collected.findings.raise_faults(f"{arguments.raw_dir} cannot be converted:")
        raise
    return Prepared(found.collected, split, form)


def _drawn(arguments: argparse.Namespace, found: Found) -> Split:
    """Draw 70/10/20 of the patients with labels; less where there is a test folder already."""
    if arguments.validation is not None:
        raise UserError("--validation and --split seed:N exclude each other for LC.")
    cases = found.collected.cases
    lists = SplitLists(
        name=arguments.split,
        sha256="",
        pool=tuple(c for c in found.training if cases[c].label is not None),
        unlabeled=tuple(c for c in found.training if cases[c].label is None),
        validation=(),
        test=tuple(found.test),
        groups=group_cases([*found.training, *found.test], arguments.group_regex),
    )
    shares = {
        subset: share
        for subset, share in _SHARES.items()
        if not (subset == "test" and found.test)
        and not (subset == "validation" and arguments.no_val)
    }
    lists = draw(lists, int(arguments.split.removeprefix("seed:")), shares)
    return finish(lists, _request(arguments), bool(found.collected.unlabeled))


def _request(arguments: argparse.Namespace) -> Request:
    return Request(labeled=arguments.labeled, labeled_list=arguments.labeled_list)


def _prepare_png(arguments: argparse.Namespace) -> Prepared:
    """Prepare slices as pictures in ``train-label``, ``train-unlabel``, ``val`` and ``test``."""
    if arguments.split != BY_LABELS or arguments.validation is not None:
        raise UserError(
            f"{arguments.raw_dir} has {', '.join(_PNG_FOLDERS.values())}, which is the split; "
            "leave --split and --validation out."
        )
    if arguments.label_map is None:
        raise UserError(
            "the grey values of the masks are not known; say what they mean, for example "
            "--label-map 255:1."
        )
    naming = _png_naming(arguments)
    collected = Collected(arguments.raw_dir, {})
    subsets = {
        subset: _collect_png(arguments, collected, subset, folder, naming)
        for subset, folder in _PNG_FOLDERS.items()
    }
    add_own_unlabeled(
        collected,
        unlabeled_folders(arguments.raw_dir, arguments.extra_unlabeled),
        lambda extra: images_in(extra, naming, (), collected.findings),
    )
    found = Found(collected, [*subsets["labeled"], *subsets["unlabeled"]], list(subsets["test"]))
    found.test_labels = (arguments.raw_dir / _PNG_FOLDERS["test"] / "mask").is_dir()
    try:
        split = _png_split(arguments, subsets, bool(collected.unlabeled))
        if arguments.channel_names is None:
            first = collected.cases[subsets["labeled"][0]].images[0]
            arguments.channel_names = "R,G,B" if generic.layout(first)[1] == 3 else "zscore"
        form = generic.make_form(arguments, found, {}, split)
    except UserError:
        collected.findings.raise_faults(f"{arguments.raw_dir} cannot be converted:")
        raise
    return Prepared(collected, split, form)


def _png_naming(arguments: argparse.Namespace) -> Naming:
    """Return how the slices of all folders are named, as those with a mask have it."""
    suffixes = tuple(arguments.image_suffix.split(",")) if arguments.image_suffix else ()
    naming = Naming(suffixes, arguments.label_suffix)
    root: Path = arguments.raw_dir / _PNG_FOLDERS["labeled"]
    masks = root / "mask"
    labels = labels_in(masks, naming, Findings()) if masks.is_dir() else {}
    return naming.settled(root / "image", labels)


def _collect_png(
    arguments: argparse.Namespace, collected: Collected, subset: str, folder: str, naming: Naming
) -> list[str]:
    """Collect one subset's cases; masks of unlabeled slices are not even listed unless wanted."""
    root: Path = arguments.raw_dir / folder
    if not (root / "image").is_dir():
        return []
    wanted = subset != "unlabeled" or arguments.keep_hidden_labels
    masks = root / "mask"
    labels = labels_in(masks, naming, collected.findings) if wanted and masks.is_dir() else {}
    images = images_in(root / "image", naming, labels, collected.findings)
    match(images, labels, collected.findings)
    new = []
    for case, files in images.items():
        if case in collected.cases:
            collected.findings.faults.append(
                f"case {case}: is there twice, {collected.cases[case].images[0]} and {files[0]}"
            )
            continue
        collected.cases[case] = SourceFiles(files, labels.get(case))
        new.append(case)
    return new


def _png_split(
    arguments: argparse.Namespace, subsets: dict[str, list[str]], has_extra: bool
) -> Split:
    """Return the split that the folders are; no patient's slices may be in two of them."""
    groups = group_cases(
        [case for cases in subsets.values() for case in cases],
        arguments.group_regex or _PNG_PATIENT,
    )
    places: dict[str, list[str]] = {}
    for subset, cases in subsets.items():
        for patient in dict.fromkeys(groups[case] for case in cases):
            places.setdefault(patient, []).append(_PNG_FOLDERS[subset])
    faults = [
        f"  - {patient} is in {' and '.join(folders)}"
        for patient, folders in places.items()
        if len(folders) > 1
    ]
    if faults:
        raise UserError(
            "slices of a patient (the text before the first '_', or --group-regex) must be in one "
            "folder:\n" + "\n".join(faults)
        )
    lists = SplitLists(
        name="folders",
        sha256="",
        pool=tuple(subsets["labeled"]),
        unlabeled=tuple(subsets["unlabeled"]),
        validation=() if arguments.no_val else tuple(subsets["validation"]),
        test=tuple(subsets["test"]),
        groups=groups,
        left_out=tuple(subsets["validation"]) if arguments.no_val else (),
    )
    return finish(lists, _request(arguments), has_extra)
