"""Find the cases in a user's own folders; whatever can be understood in two ways is a fault."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.dataset_conversion.generic.dicom_folders import list_series
from nnunet_semisup.dataset_conversion.generic.layouts import nearest_names
from nnunet_semisup.dataset_conversion.reading.formats import ending_of
from nnunet_semisup.preparation.raw import composed, is_junk

_CHANNEL = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})")
_SIDE_FILES = (".json", ".raw", ".zraw", ".txt", ".csv", ".md")
_SHOWN = 5

Images = dict[str, tuple[Path, ...]]


class Digits(Enum):
    """Tell what four digits at the end of an image's name are, judged from training images."""

    CHANNEL = "the number of a channel"
    NAME = "part of the case's name"
    ABSENT = "not there in any training image"


@dataclass(frozen=True)
class Naming:
    """Find the case in a file's name.

    Args:
        image_suffixes: text after the case, one a channel; empty for nnU-Net's ``_0000`` or none.
        label_suffix: text after the case in the name of a label.
        image_prefix: text before the case in the name of an image.
        label_prefix: text before the case in the name of a label.
        digits: what the training images say; ``None`` as long as they were not looked at.
        together: whether images and labels lie in one folder, where the labels are the files with
            the text of labels and the images are the others.
    """

    image_suffixes: tuple[str, ...] = ()
    label_suffix: str = ""
    image_prefix: str = ""
    label_prefix: str = ""
    digits: Digits | None = None
    together: bool = False

    def is_label(self, stem: str) -> bool:
        """Return whether a name without ending has the text of labels, if there is such text."""
        fits = stem.startswith(self.label_prefix) and stem.endswith(self.label_suffix)
        return fits and bool(self.label_prefix or self.label_suffix)

    def of_kind(self, files: Sequence[tuple[Path, str]], what: str) -> list[tuple[Path, str]]:
        """Return the files that are images, or labels, of a folder that may have both."""
        if not self.together:
            return list(files)
        return [(path, stem) for path, stem in files if self.is_label(stem) == (what == "label")]

    def settled(self, folder: Path, labels: Collection[str]) -> Naming:
        """Return the naming for all folders of a conversion.

        Args:
            folder: of the training images.
            labels: the training cases with a label.
        """
        files = self.of_kind(_known_files(folder, Findings()), "image")
        stems = [stem for _, stem in self.without_prefix(files, "image", Findings())]
        if _are_numbered(stems, labels):
            return replace(self, digits=Digits.CHANNEL)
        found = any(map(_CHANNEL.fullmatch, stems))
        return replace(self, digits=Digits.NAME if found else Digits.ABSENT)

    def without_prefix(
        self, files: Sequence[tuple[Path, str]], what: str, findings: Findings
    ) -> list[tuple[Path, str]]:
        """Return files with their names without the text before the case.

        Args:
            files: with their names without ending.
            what: ``"image"`` or ``"label"``.
            findings: receives a fault for every name that does not begin with it.
        """
        prefix = self.label_prefix if what == "label" else self.image_prefix
        findings.faults += [
            f"{path}: the name does not begin with '{prefix}' (--{what}-prefix); rename it or move "
            "it away"
            for path, stem in files
            if not stem.startswith(prefix)
        ]
        return [(path, s.removeprefix(prefix)) for path, s in files if s.startswith(prefix)]


def labels_in(folder: Path, naming: Naming, findings: Findings) -> dict[str, Path]:
    """Return the labels directly in ``folder``, by case."""
    found: dict[str, Path] = {}
    files = naming.of_kind(_known_files(folder, findings), "label")
    for path, stem in naming.without_prefix(files, "label", findings):
        if not stem.endswith(naming.label_suffix):
            findings.faults.append(
                f"{path}: the name does not end in '{naming.label_suffix}' (--label-suffix); "
                "rename it or move it away"
            )
            continue
        case = stem.removesuffix(naming.label_suffix)
        if case in found:
            findings.faults.append(
                f"case {case}: has two labels, {found[case]} and {path}; move one of them away"
            )
        found.setdefault(case, path)
    return found


def images_in(
    folder: Path,
    naming: Naming,
    labels: Collection[str],
    findings: Findings,
    apart: Sequence[Path] = (),
) -> Images:
    """Return the images directly in ``folder`` by case, or the DICOM series below it.

    Args:
        folder: of the images.
        naming: how a name gives the case.
        labels: cases with a label, which settle whether ``_0000`` is a channel or part of a name;
            where they do not, ``naming`` does.
        findings: where to put what is wrong.
        apart: folders of another use, in which DICOM series are not looked for.
    """
    files = naming.of_kind(_known_files(folder, findings), "image")
    if not files:
        return {case: (p,) for case, p in list_series(folder, labels, findings, apart).items()}
    files = naming.without_prefix(files, "image", findings)
    stems = [stem for _, stem in files]
    if naming.image_suffixes:
        pairs = [_by_suffix(path, stem, naming, findings) for path, stem in files]
    elif _are_numbered(stems, labels, naming.digits):
        pairs = [_by_number(stem) for stem in stems]
    else:
        pairs = [(stem, 0) for stem in stems]
    channels: dict[str, dict[int, Path]] = {}
    for (path, _), (case, channel) in zip(files, pairs, strict=True):
        if not case:
            continue
        known = channels.setdefault(case, {})
        if channel in known:
            findings.faults.append(
                f"case {case}: {known[channel]} and {path} are the same image by their names; "
                "move one of them away"
            )
        known.setdefault(channel, path)
    return _complete(channels, len(naming.image_suffixes), findings)


def _complete(
    channels: Mapping[str, Mapping[int, Path]], expected: int, findings: Findings
) -> Images:
    """Return the cases with all of their channels; the others are faults."""
    number = expected or 1 + max(max(files) for files in channels.values())
    found: Images = {}
    for case, files in channels.items():
        missing = [channel for channel in range(number) if channel not in files]
        if missing:
            present = ", ".join(path.name for path in files.values())
            findings.faults.append(
                f"case {case}: {len(missing)} of {number} channels missing, there is only "
                f"{present}; add the others, or move the case away"
            )
        else:
            found[case] = tuple(files[channel] for channel in range(number))
    return found


def _known_files(folder: Path, findings: Findings) -> list[tuple[Path, str]]:
    """Return image files in ``folder``, their names without ending; the rest is noted."""
    known, left_out = [], []
    for path in sorted(folder.iterdir()):
        ending = ending_of(path)
        if is_junk(path):
            left_out.append(path.name)
        elif ending is not None and not path.is_dir():
            known.append((path, composed(path.name[: -len(ending)])))
        elif path.is_file() and path.suffix.lower() not in _SIDE_FILES:
            left_out.append(path.name)
    if known:
        left_out += [f"{p.name}/" for p in sorted(folder.iterdir()) if p.is_dir()]
    if left_out:
        findings.warnings.append(
            f"{len(left_out)} other files in {folder} are left out: {_listed(left_out)}"
        )
    return known


def _by_suffix(path: Path, stem: str, naming: Naming, findings: Findings) -> tuple[str, int]:
    """Return case and channel by ``--image-suffix``; of several that fit, the longest."""
    fitting = [s for s in naming.image_suffixes if stem.endswith(s)]
    if not fitting:
        findings.faults.append(
            f"{path}: the name does not end in {' or '.join(map(repr, naming.image_suffixes))} "
            "(--image-suffix); rename it or move it away"
        )
        return "", 0
    suffix = max(fitting, key=len)
    return stem.removesuffix(suffix), naming.image_suffixes.index(suffix)


def _are_numbered(
    stems: Sequence[str], labels: Collection[str], training: Digits | None = None
) -> bool:
    """Return whether four digits at the end are channels, not part of the case's name.

    Args:
        stems: names of a folder's images without their endings.
        labels: cases with a label in that folder, whose names decide first.
        training: what the training images say, which decides next. If their names have no four
            digits, an image is one file: the digits are its channel only if all are ``0000``.
    """
    matches = [match for stem in stems if (match := _CHANNEL.fullmatch(stem))]
    if not set(stems).isdisjoint(labels):
        return False
    cases = {match["id"] for match in matches}
    first = sum(match["channel"] == "0000" for match in matches)
    likely = len(matches) == len(stems) and 2 * first >= len(cases)
    if likely and not cases.isdisjoint(labels):
        return True
    if training is Digits.CHANNEL:
        return first > 0
    if training is Digits.ABSENT:
        return first == len(stems)
    return training is None and likely and len(cases) > 1


def _by_number(stem: str) -> tuple[str, int]:
    """Return case and channel; a name without a number is the first channel."""
    match = _CHANNEL.fullmatch(stem)
    return (match["id"], int(match["channel"])) if match else (stem, 0)


def match(images: Images, labels: Mapping[str, Path], findings: Findings) -> None:
    """Say which labels have no image."""
    alone = [case for case in labels if case not in images]
    if not alone or not images:
        return
    if len(alone) == len(labels):
        findings.faults.append(
            f"no label fits an image by its name: the images are {_listed(images)}, the labels "
            f"{_listed(labels)}; {nearest_names(images, labels)}"
        )
        return
    findings.faults += [
        f"case {case}: {labels[case]} has no image; add the image, or move the label away"
        for case in alone
    ]


def _listed(items: Iterable[str]) -> str:
    """Return the first few items as text."""
    names = list(items)
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
