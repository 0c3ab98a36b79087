"""Advice for folders that are laid out otherwise, judged from the names in them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import islice, takewhile
from pathlib import Path

from nnunet_semisup.dataset_conversion.generic.case_folders import is_bids, is_derived
from nnunet_semisup.dataset_conversion.reading.formats import ending_of
from nnunet_semisup.dataset_conversion.reading.pictures import ENDINGS as PICTURE_ENDINGS
from nnunet_semisup.preparation.raw import is_junk

_LOOKED_AT = 5000
_LABEL_WORDS = re.compile(
    r"seg|mask|label|lesion|contour|ground|(^|[^a-z])(gt|roi)([^a-z]|$)", re.I
)
_SLICES = 3
"""Numbered pictures from which on a folder is a stack."""
_SHARE = 0.5
"""Of the folders, in which a name must be to be that of the image of every case."""


def suggestion(root: Path) -> str:
    """Return options that would find the images below a folder, and two of these; else nothing.

    Args:
        root: in which images were not found as the options say.
    """
    files = list(islice(_image_files(root), _LOOKED_AT))
    if not files:
        return ""
    if slices := _of_slices(root, files):
        return slices
    bids = is_bids(root)
    if not bids and (folders := _side_by_side(root, files) or _of_kinds(root, files)):
        return folders
    patterns = _of_bids(root, files) if bids else _of_case_folders(root, files)
    images = [pattern for pattern in patterns if not _LABEL_WORDS.search(pattern)]
    labels = [pattern for pattern in patterns if _LABEL_WORDS.search(pattern)]
    if not images:
        return f" The nearest files are {_two(files)}."
    kind = "a BIDS tree" if bids else "a folder a case"
    several = f" (or {', '.join(map(repr, images[1:]))})" if len(images) > 1 else ""
    options = f"--image-glob '{images[0]}'{several}"
    others = f" (or {', '.join(map(repr, labels[1:]))})" if len(labels) > 1 else ""
    options += f" --label-glob '{labels[0]}'{others}" if labels else ""
    found = [p for p in files if p.match(images[0]) and not (bids and is_derived(p, root))]
    return f" It looks like {kind}: {options} would take {_two(found)}."


def _image_files(root: Path) -> Iterable[Path]:
    for parent, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not is_junk(Path(parent) / name))
        for name in sorted(names):
            path = Path(parent) / name
            if ending_of(path) and not is_junk(path):
                yield path


def _two(paths: Sequence[Path]) -> str:
    return " and ".join(map(str, paths[:2]))


def _side_by_side(root: Path, files: Sequence[Path]) -> str:
    """Suggest options for images and labels in one folder; else nothing."""
    names = [path.name.removesuffix(ending_of(path) or "") for path in files if path.parent == root]
    labels = [name for name in names if _LABEL_WORDS.search(name)]
    images = [name for name in names if name not in labels]
    if not images or not labels:
        return ""
    image, label = _most_alike(images, labels)
    if not (options := _making_equal(image, label)):
        return ""
    return (
        f" It looks like images and labels side by side: --images . --labels . {options} would "
        f"take {image} and {label} as one case."
    )


def _of_kinds(root: Path, files: Sequence[Path]) -> str:
    """Suggest options for a folder of images beside one of labels; else nothing."""
    inside = Counter(p.parent.name for p in files if p.parent.parent == root)
    images = [name for name, n in inside.items() if n > 1 and not _LABEL_WORDS.search(name)]
    labels = [name for name in inside if _LABEL_WORDS.search(name)]
    names = {path.name for path in files if path.parent.name in images}
    # A folder a case has files of the same names as the others have.
    if len(images) != 1 or len(labels) > 1 or len(names) < 2:
        return ""
    options = f"--images {images[0]}" + (f" --labels {labels[0]}" if labels else "")
    found = [path for path in files if path.parent == root / images[0]]
    return f" It looks like a folder of images: {options} would take {_two(found)}."


def _of_bids(root: Path, files: Sequence[Path]) -> list[str]:
    """Return patterns of last words: those of raw scans, and those that sound like labels."""
    raw: Counter[str] = Counter()
    derived: Counter[str] = Counter()
    for path in files:
        pattern = "*_" + path.name.rpartition("_")[2]
        (derived if is_derived(path, root) else raw)[pattern] += 1
    labels = [pattern for pattern, _ in derived.most_common() if _LABEL_WORDS.search(pattern)]
    return [pattern for pattern, _ in raw.most_common()] + labels


def _of_case_folders(root: Path, files: Sequence[Path]) -> list[str]:
    """Return patterns of names that most folders in ``root`` have, ``*`` for the folder's name."""
    folders: dict[str, set[str]] = {}
    for path in files:
        top, *rest = path.relative_to(root).parts
        if rest:
            pattern = "/".join(name.replace(top, "*") for name in rest)
            folders.setdefault(top, set()).add(pattern)
    for top, names in folders.items():
        inner = Counter(name.rpartition("/")[0] for name in names if "/" in name)
        of_masks = {folder for folder, count in inner.items() if count > 1}
        kept = {name for name in names if name.rpartition("/")[0] not in of_masks}
        folders[top] = kept | {f"{folder}/*" for folder in of_masks if _LABEL_WORDS.search(folder)}
    if len(folders) < 2:
        return []
    shortest = sorted({name for names in folders.values() for name in names}, key=_length)
    counts = Counter({name: sum(name in own for own in folders.values()) for name in shortest})
    most = max(counts.values(), default=0)
    if most < _SHARE * len(folders) or most < 2:
        return []
    images = [p for p, n in counts.most_common() if n == most and not _LABEL_WORDS.search(p)]
    return images + [p for p, _ in counts.most_common() if _LABEL_WORDS.search(p)]


def _length(name: str) -> tuple[int, str]:
    """Order names so that a derived image, ``t1_Eq_1.nii.gz``, comes after its original."""
    return len(name), name


def _of_slices(root: Path, files: Sequence[Path]) -> str:
    """Say what to do with a folder of numbered pictures a case; else nothing."""
    folders = Counter(
        path.parent
        for path in files
        if path.parent != root and ending_of(path) in PICTURE_ENDINGS and path.stem[-1].isdigit()
    )
    stacks = [folder for folder, number in folders.items() if number >= _SLICES]
    if len(stacks) < 2 or len(stacks) < _SHARE * len({path.parent for path in files}):
        return ""
    return (
        f" It looks like a folder of slices a case, such as {_two(stacks)}. For 3D, save the "
        "pictures of a folder as one volume with its voxel size, for example with "
        "SimpleITK.ImageSeriesReader, images and labels alike; for 2D, move all into one folder of "
        "images and one of labels with names CASE_SLICE, and give --group-regex '^(.+)_'."
    )


def nearest_names(images: Iterable[str], labels: Iterable[str]) -> str:
    """Return what would make names of images and labels equal, judged from the two most alike.

    Args:
        images: names of cases from the images.
        labels: names of cases from the labels.
    """
    image, label = _most_alike(images, labels)
    if options := _making_equal(image, label):
        return f"the nearest are {image} and {label}, which {options} makes equal"
    return (
        f"the nearest are {image} and {label}; --image-prefix, --image-suffix, --label-prefix and "
        "--label-suffix take the text before and after the case, or rename the files"
    )


def _most_alike(images: Iterable[str], labels: Iterable[str]) -> tuple[str, str]:
    """Return the image and the label whose names are most alike, of the first hundred."""
    names = list(labels)[:100]
    pairs = [(image, label) for image in list(images)[:100] for label in names]
    return max(pairs, key=lambda pair: SequenceMatcher(None, *pair).ratio())


def _making_equal(image: str, label: str) -> str:
    """Return options that make two names equal: one holds the other, or both end in the case."""
    for what, longer, shorter in (("label", label, image), ("image", image, label)):
        before, found, after = longer.partition(shorter)
        if found:
            options = [f"--{what}-prefix {before}"] * bool(before)
            return " ".join(options + [f"--{what}-suffix {after}"] * bool(after))
    from_the_end = zip(reversed(image), reversed(label), strict=False)
    end = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], from_the_end))[::-1]
    case = re.sub(r"^[^A-Za-z0-9]+", "", end)
    if not case:
        return ""
    prefixes = {"image": image.removesuffix(case), "label": label.removesuffix(case)}
    return " ".join(f"--{what}-prefix {text}" for what, text in prefixes.items() if text)
