"""What can be understood in two ways, or not at all, is refused by name."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.unit.dataset_conversion.name_faults import NAME_FAULTS
from tests.unit.dataset_conversion.trees import read
from tests.unit.dataset_conversion.trees_generic import (
    LABELED,
    PHOTO_OPTIONS,
    UNLABELED,
    WHAT,
    convert,
    make_folders,
    make_photos,
    mask,
    photo,
    scan,
    write,
)


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def rename_all(folder, change):
    for path in list(folder.iterdir()):
        path.rename(path.with_name(change(path.name)))


def to_second_channel(folders, lost):
    for case in LABELED + UNLABELED:
        path = folders.image(case)
        write(255 - read(path), path.with_name(f"{case}_0001.nii.gz"))
        path.rename(path.with_name(f"{case}_0000.nii.gz"))
    (folders.images / f"{lost}_0001.nii.gz").unlink()


def split_file(folders, **lists):
    (folders.root / "split.json").write_text(json.dumps(lists))


def labels_file(folders, content):
    (folders.root / "labels.json").write_text(json.dumps(content))


def list_file(folders, *cases):
    (folders.root / "list.txt").write_text("\n".join(cases))


def case_folders(folders):
    for case in LABELED + UNLABELED:
        (folders.images / case).mkdir()
        folders.image(case).rename(folders.images / case / "ct_1.nii.gz")
    write(scan(8), folders.images / "p1" / "ct_2.nii.gz")
    write(mask(0), folders.images / "p2" / "seg.nii.gz")
    write(mask(0), folders.images / "p2" / "seg_old.nii.gz")


def colours(photos):
    array = np.zeros((60, 72, 3), np.uint8)
    array[3:9, 4:8] = (255, 0, 0)
    Image.fromarray(array).save(photos.labels / "p1_manual.png")
    (photos.labels / "p1_manual.gif").unlink()


def rotated(photos):
    path = photos.images / "p4_training.tif"
    exif = Image.Exif()
    exif[274] = 6
    Image.open(path).save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()


def animated(photos):
    frames = [Image.fromarray(mask(seed, 255, (60, 72))) for seed in range(2)]
    frames[0].save(photos.labels / "p1_manual.gif", save_all=True, append_images=frames[1:])


def uneven_list(folders):
    list_file(folders, "p1", "nobody")


IMAGES_TWICE = ("p1.nii.gz", "p1.nrrd")
FAULTS = {
    "truncated image": (lambda d: truncate(d.image("p4")), "damaged or not a NIfTI file"),
    "label without image": (
        lambda d: write(mask(0), d.label("p9")),
        "labels/p9.nii.gz has no image",
    ),
    "labels with other names": (
        lambda d: rename_all(d.labels, lambda name: f"seg_{name}"),
        "no label fits an image by its name: the images are p1, p2, p3, p4, p5, the labels",
    ),
    "image in two formats": (
        lambda d: write(scan(0), d.images / "p1.nrrd"),
        "p1.nrrd are the same image by their names",
    ),
    "two labels of a case": (
        lambda d: write(mask(0), d.labels / "p1.nrrd"),
        "case p1: has two labels",
    ),
    "missing channel": (
        lambda d: to_second_channel(d, "p4"),
        "case p4: 1 of 2 channels missing, there is only p4_0000.nii.gz",
        ("--label-names", "background,organ", "--channel-names", "T1,T2"),
    ),
    "channel names do not fit": (
        lambda d: None,
        "there are 2 channel names (T1, T2) for 1 channels",
        ("--label-names", "background,organ", "--channel-names", "T1,T2"),
    ),
    "channel not named": (
        lambda d: None,
        "Give --channel-names, 1 separated by commas: CT is normalised by its Hounsfield units",
        ("--label-names", "background,organ"),
    ),
    "labels not named": (
        lambda d: None,
        "what the labels mean is not known. Give --label-names background,NAME",
        ("--channel-names", "CT"),
    ),
    "background not first": (
        lambda d: None,
        "the first must be 'background', the value 0",
        ("--label-names", "organ,background"),
    ),
    "map to an unknown label": (
        lambda d: None,
        "2 is none of the labels' values [0, 1]",
        (*WHAT, "--label-map", "255:2"),
    ),
    "map that is none": (
        lambda d: None,
        "give pairs OLD:NEW separated by commas",
        (*WHAT, "--label-map", "255=1"),
    ),
    "value that the map does not have": (
        lambda d: write(mask(0, 255), d.label("p1")),
        "the label has the values 0, 255; only 0, 1 are expected",
    ),
    "regions without order": (
        lambda d: labels_file(d, {"labels": {"background": 0, "all": [1, 2], "core": 2}}),
        "'regions_class_order' is needed",
        ("--labels-json", "ROOT/labels.json"),
    ),
    "gap in the label values": (
        lambda d: labels_file(d, {"labels": {"background": 0, "organ": 2}}),
        "the label values are [0, 2]; nnU-Net needs 0, 1, 2 ... without a gap",
        ("--labels-json", "ROOT/labels.json"),
    ),
    "shape": (
        lambda d: write(mask(0)[:-1], d.label("p1")),
        "image and label differ in size (24, 20, 10) and (24, 20, 9)",
    ),
    "voxel size": (
        lambda d: write(mask(0), d.label("p1"), (1.0, 1.0, 3.0)),
        "image and label differ in spacing",
    ),
    "empty label": (
        lambda d: write(np.zeros_like(mask(0)), d.label("p1")),
        "the label has no foreground; --allow-empty accepts that",
    ),
    "no label with foreground": (
        lambda d: [write(np.zeros_like(mask(0)), d.label(case)) for case in LABELED],
        "none of the 3 labeled cases has foreground in its label, so there is nothing to learn",
        (*WHAT, "--allow-empty"),
    ),
    "same scan in two subsets": (
        lambda d: write(scan(0), d.image("p4")),
        "p1 (labeled) and p4 (unlabeled) hold the same image, voxel for voxel",
    ),
    "scans and pictures mixed": (
        lambda d: write(photo(0), d.images / "p6.png"),
        "pictures (2D) and scans (3D) are mixed",
    ),
    "no folder of images": (
        lambda d: d.images.rename(d.root / "pictures"),
        "has no folder imagesTr or images, only labels, pictures. Say where the images are",
    ),
    "two folders of images": (
        lambda d: (d.root / "imagesTr").mkdir(),
        "has imagesTr and images; choose one by --images",
    ),
    "folder that is not there": (
        lambda d: None,
        "scans is not a folder",
        (*WHAT, "--images", "scans"),
    ),
    "unlabeled scans that are not there": (
        lambda d: None,
        "--extra-unlabeled unlabeled is not a folder, neither in",
        (*WHAT, "--extra-unlabeled", "unlabeled"),
    ),
    "no unlabeled scan in its folder": (
        lambda d: (d.root / "unlabeled").mkdir(),
        "unlabeled has no image that can be read and no DICOM series",
        (*WHAT, "--extra-unlabeled", "unlabeled"),
    ),
    "a label for every image": (
        lambda d: [d.image(case).unlink() for case in UNLABELED],
        "every image has a label, so nothing is left as unlabeled. Add the unlabeled scans with "
        "--extra-unlabeled DIR, or hide labels with --labeled N (1 to 2).",
    ),
    "a single image, with its label": (
        lambda d: [p.unlink() for p in d.root.rglob("p[2345].nii.gz")],
        "nothing is left as unlabeled. Add the unlabeled scans with --extra-unlabeled DIR.",
    ),
    "no label hidden": (
        lambda d: [d.image(case).unlink() for case in UNLABELED],
        "no case is left as unlabeled; give a smaller --labeled N, or add scans with "
        "--extra-unlabeled DIR",
        (*WHAT, "--labeled", "3"),
    ),
    "split without unlabeled cases": (
        lambda d: split_file(d, labeled=LABELED, unlabeled=[]),
        "split.json names no unlabeled case. Add the unlabeled scans with --extra-unlabeled DIR",
        (*WHAT, "--split", "ROOT/split.json"),
    ),
    "split that is no json": (
        lambda d: (d.root / "split.json").write_text("{"),
        "Give a json file like",
        (*WHAT, "--split", "ROOT/split.json"),
    ),
    "no image": (
        lambda d: [path.unlink() for path in d.images.iterdir()],
        "has no image that can be read and no DICOM series",
    ),
    "no label": (
        lambda d: [path.unlink() for path in d.labels.iterdir()],
        "none of the 5 training images has a label",
    ),
    "all labels kept for validation": (
        lambda d: (d.root / "list.txt").write_text("p1\np2\np3"),
        "all 3 cases with a label are kept for validation",
        (*WHAT, "--validation", "ROOT/list.txt"),
    ),
    "name that nnU-Net misunderstands": (
        lambda d: d.image("p4").rename(d.images / "p4_seg.nii.gz"),
        "case p4_seg: a name must not start with '.' or '_' nor end in '_seg'",
    ),
    "suffix that a file lacks": (
        lambda d: rename_all(d.images, lambda n: n if n[1] == "4" else n.replace(".", "_ct.", 1)),
        "p4.nii.gz: the name does not end in '_ct' (--image-suffix)",
        (*WHAT, "--image-suffix", "_ct"),
    ),
    "too many validation cases": (
        lambda d: None,
        "--validation 3 is not possible: there are 3 cases with labels only",
        (*WHAT, "--validation", "3"),
    ),
    "unknown validation case": (
        uneven_list,
        "names what is no training case with a label: nobody",
        (*WHAT, "--validation", "ROOT/list.txt"),
    ),
    "labeled case without a label": (
        lambda d: list_file(d, "p4"),
        "case p4: is labeled but has no label file",
        (*WHAT, "--labeled-list", "ROOT/list.txt"),
    ),
    "more labels than there are": (
        lambda d: None,
        "--labeled 4 is not available; give a whole number from 1 to 3",
        (*WHAT, "--labeled", "4"),
    ),
    "split that names a case twice": (
        lambda d: split_file(d, labeled=["p1"], unlabeled=["p1", "p4"]),
        "case p1 is named 2 times, in labeled and unlabeled",
        (*WHAT, "--split", "ROOT/split.json"),
    ),
    "split of another kind": (
        lambda d: None,
        "--split random is unknown; give labels",
        (*WHAT, "--split", "random"),
    ),
    "group that fits no case": (
        lambda d: None,
        "gives no patient for 5 cases: p1, p2, p3, p4, p5",
        (*WHAT, "--group-regex", "^([0-9]+)_"),
    ),
    "group that is no pattern": (
        lambda d: None,
        "is no regular expression",
        (*WHAT, "--group-regex", "("),
    ),
    "several images in a case's folder": (
        case_folders,
        "must have one file like 'ct*', it has: ct_1.nii.gz, ct_2.nii.gz",
        (*WHAT, "--image-glob", "ct*", "--label-glob", "seg*"),
    ),
    "several labels in a case's folder": (
        case_folders,
        "has several labels: seg.nii.gz, seg_old.nii.gz",
        (*WHAT, "--image-glob", "ct*", "--label-glob", "seg*"),
    ),
    "link of files that must be rewritten": (
        lambda d: write(scan(0), d.images / "p7.nrrd"),
        "--link hardlink is not possible",
        (*WHAT, "--link", "hardlink"),
    ),
    "link of files that are turned": (
        lambda d: None,
        "--link symlink and --reorient exclude each other",
        (*WHAT, "--link", "symlink", "--reorient"),
    ),
    **NAME_FAULTS,
}

PHOTO_FAULTS = {
    "mask in colours": (colours, "is a mask in 2 colours; save it with one whole number a pixel"),
    "animated mask": (animated, "holds 2 pictures; one is expected"),
    "photograph stored rotated": (rotated, "is stored rotated (EXIF orientation 6)"),
    "grey picture among colours": (
        lambda d: write(photo(3)[..., 0], d.images / "p4_training.tif"),
        "case p4: ",
        "has 1 values a voxel; 3 expected",
    ),
    "alpha channel": (
        lambda d: [
            write(np.dstack([photo(i), np.full((60, 72), 255, np.uint8)]), path)
            for i, path in enumerate(d.images.iterdir())
        ],
        "save them without their alpha channel",
    ),
    "mask of another size": (
        lambda d: write(mask(0, 255, (60, 70)), d.labels / "p1_manual.gif"),
        "image and label differ in size (72, 60) and (70, 60)",
    ),
    "truncated photograph": (
        lambda d: truncate(d.images / "p4_training.tif"),
        "damaged or not a picture",
    ),
    "pictures to be turned": (
        lambda d: None,
        "--reorient is for scans; pictures have no orientation. Leave it out",
        (*PHOTO_OPTIONS, "--reorient"),
    ),
    "values not mapped": (
        lambda d: None,
        "the label has the values 0, 255; only 0, 1 are expected",
        (*PHOTO_OPTIONS[:4], "--label-names", "background,vessel"),
    ),
}


def case_of(name, tree):
    """What to break, what to find in the error, and the options of the command."""
    table, usual = (FAULTS, WHAT) if name in FAULTS else (PHOTO_FAULTS, PHOTO_OPTIONS)
    spoil, *rest = table[name]
    options = rest.pop() if isinstance(rest[-1], tuple) else usual
    return spoil, rest, [text.replace("ROOT", str(tree.root)) for text in options]


@pytest.mark.parametrize("name", [*FAULTS, *PHOTO_FAULTS])
def test_fault_is_named_and_nothing_is_written(roots, tmp_path, capsys, name, no_search):
    make = make_folders if name in FAULTS else make_photos
    tree = make(tmp_path / "data")
    spoil, messages, options = case_of(name, tree)
    spoil(tree)
    assert convert(tree.root, *options) == 2
    error = capsys.readouterr().err
    for message in messages:
        assert message in error
    assert not any(roots["raw"].iterdir())


def test_all_faults_come_at_once(roots, tmp_path, capsys, no_search):
    folders = make_folders(tmp_path / "data")
    truncate(folders.image("p4"))
    write(mask(0, 7), folders.label("p1"))
    write(mask(0), folders.label("p9"))
    assert convert(folders.root, *WHAT) == 2
    error = capsys.readouterr().err
    assert "3 faults, nothing was written" in error
    for case in ("p1", "p4", "p9"):
        assert f"- case {case}: " in error
