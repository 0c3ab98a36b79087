"""Sound raw data sets and the ways in which the tests of the verify command break them."""

import json
import shutil
import unicodedata

import numpy as np
import SimpleITK

from tests.helpers import make_raw_dataset, write_image
from tests.unit.dataset_conversion.content_faults import LFS_POINTER, link_to_nothing, unpack
from tests.unit.dataset_conversion.trees_names import write_nifti

SHAPE = (8, 16, 14)
CHANNELS = ("lab_000_0000.nii.gz", "lab_000_0001.nii.gz")


def noise(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def make_raw(root):
    """Two channels; three labeled, two unlabeled and one test case."""
    folder = make_raw_dataset(root, 501, "Blobs", SHAPE, 3, 2, 2, num_test=1).folder
    for number, path in enumerate(sorted(folder.glob("images*/*"))):
        write_image(path, noise(number))
    return folder


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content))


def volume(path, array=None, spacing=(1.0, 1.0, 1.0), direction=None):
    image = SimpleITK.GetImageFromArray(noise() if array is None else array)
    image.SetSpacing(spacing)
    if direction is not None:
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(path))


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def not_finite(path):
    array = noise(9)
    array[1, 2, 3] = np.inf
    volume(path, array)


def label(path, values, shape=SHAPE):
    array = np.zeros(shape, np.uint8)
    for number, value in enumerate(values):
        array[2, 3, number] = value
    volume(path, array)


def named_label(path, names):
    array = np.zeros(SHAPE, np.uint8)
    array[2, 3, :4] = 1
    write_nifti(array, path, names, spacing=(1.0, 1.0, 1.0))


def drop_labels(made):
    edit(made / "dataset.json", lambda c: c["labels"].update(extra=5))


def split(made, train, val):
    (made / "splits_final.json").write_text(json.dumps([{"train": train, "val": val}]))


def stack_channels(made):
    """One file a case, with the channels in a fourth dimension."""
    for number, path in enumerate(sorted(made.glob("images*/*_0000.nii.gz"))):
        path.with_name(path.name.replace("_0000", "_0001")).unlink()
        image = SimpleITK.GetImageFromArray(noise(number, (2, *SHAPE)), isVector=False)
        SimpleITK.WriteImage(image, str(path))


def accents(made):
    """A case whose name is composed in its images and decomposed in its label."""
    for path in made.rglob("lab_001*"):
        form = "NFD" if path.parent.name == "labelsTr" else "NFC"
        new = path.name.replace("lab_001", "läb_001")
        path.rename(path.with_name(unicodedata.normalize(form, new)))


FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
FAULTS = {
    "truncated unlabeled": (
        lambda d: truncate(d / "imagesUn" / "unl_000_0000.nii.gz"),
        "case unl_000: ",
        "damaged or not a NIfTI file",
    ),
    "empty file": (
        lambda d: (d / "imagesTs" / "tst_000_0001.nii.gz").write_bytes(b""),
        "case tst_000: ",
        "the file is empty (0 bytes)",
    ),
    "pointer of Git LFS": (
        lambda d: (d / "imagesTs" / "tst_000_0001.nii.gz").write_text(LFS_POINTER),
        "case tst_000: ",
        "is a pointer of Git LFS, not the file itself",
    ),
    "link to nothing": (
        lambda d: link_to_nothing(d / "imagesUn" / "unl_000_0001.nii.gz"),
        "case unl_000: ",
        "is a link to ../.git/annex/objects/MD5E-s12, which is not there",
    ),
    "not compressed": (
        lambda d: unpack(d / "imagesUn" / "unl_000_0001.nii.gz"),
        "case unl_000: ",
        "is NIfTI that is not compressed, though its name ends in .gz",
    ),
    "letters of a name stored in two ways": (
        accents,
        "look alike in name and differ in how a letter with an accent is stored",
    ),
    "infinite": (
        lambda d: not_finite(d / "imagesUn" / "unl_001_0000.nii.gz"),
        "case unl_001: ",
        "1 voxel is NaN or Inf",
    ),
    "constant": (
        lambda d: volume(d / "imagesTr" / CHANNELS[0], np.zeros(SHAPE, np.float32)),
        "every voxel has the value 0",
    ),
    "constant in all channels": (
        lambda d: [
            volume(d / "imagesUn" / f"unl_001_000{c}.nii.gz", np.full(SHAPE, 7, np.float32))
            for c in (0, 1)
        ],
        "every voxel has the value 7 like all channels of the case; take the original file",
    ),
    "channel missing": (
        lambda d: (d / "imagesUn" / "unl_000_0001.nii.gz").unlink(),
        "imagesUn: case unl_000: channel 1 is missing (expected unl_000_0001.nii.gz)",
    ),
    "channel too many": (
        lambda d: volume(d / "imagesTs" / "tst_000_0002.nii.gz"),
        "imagesTs: case tst_000: unexpected channel 2",
    ),
    "channels differ": (
        lambda d: volume(d / "imagesUn" / "unl_000_0001.nii.gz", spacing=(1, 1, 2)),
        "unl_000_0001.nii.gz: differs from the first channel in spacing",
    ),
    "label size": (
        lambda d: label(d / "labelsTr" / "lab_001.nii.gz", [1], (8, 16, 15)),
        "image and label differ in size (14, 16, 8) and (15, 16, 8)",
    ),
    "label direction": (
        lambda d: volume(
            d / "labelsTs" / "tst_000.nii.gz", np.ones(SHAPE, np.uint8), (1, 1, 1), FLIPPED
        ),
        "image and label differ in direction",
    ),
    "label value": (
        lambda d: label(d / "labelsTr" / "lab_001.nii.gz", [1, 2]),
        "the label has the values 0, 1, 2; only 0, 1 are expected",
    ),
    "label value in a test case": (
        lambda d: label(d / "labelsTs" / "tst_000.nii.gz", [7]),
        "case tst_000: ",
        "the label has the values 0, 7; only 0, 1 are expected",
    ),
    "label fraction": (
        lambda d: volume(d / "labelsTr" / "lab_001.nii.gz", noise()),
        "values that are not whole numbers",
    ),
    "label named as another": (
        lambda d: named_label(d / "labelsTr" / "lab_001.nii.gz", {1: "Background"}),
        "case lab_001: ",
        "its header names the value 1 'Background', which is 0 in the data set's labels",
    ),
    "label empty": (
        lambda d: label(d / "labelsTr" / "lab_002.nii.gz", []),
        "the label has no foreground; --allow-empty accepts that",
    ),
    "no label with foreground": (
        lambda d: [label(path, []) for path in (d / "labelsTr").iterdir()],
        "case lab_000: ",
        "none of the 3 labeled cases has foreground in its label",
    ),
    "label missing": (
        lambda d: (d / "labelsTr" / "lab_002.nii.gz").unlink(),
        "case lab_002: is labeled but has no label file",
    ),
    "test label missing": (
        lambda d: (d / "labelsTs" / "tst_000.nii.gz").rename(d / "labelsTs" / "tst_1.nii.gz"),
        "case tst_000: is test but has no label file",
        "case tst_1: ",
        "has no image in imagesTs",
    ),
    "image missing": (
        lambda d: [(d / "imagesTr" / name).unlink() for name in CHANNELS],
        "has no image in imagesTr",
        "numTraining is 3, imagesTr has 2 cases",
    ),
    "hidden label without image": (
        lambda d: shutil.copytree(d / "labelsTr", d / "labelsUn"),
        "lab_000.nii.gz has no image in imagesUn",
    ),
    "id in two folders": (
        lambda d: shutil.copytree(d / "imagesTr", d / "imagesUn", dirs_exist_ok=True),
        "case lab_000: the id is also used in imagesTr; ids must differ",
        "hold the same image, voxel for voxel; remove one of them",
    ),
    "id in training and test": (
        lambda d: shutil.copytree(d / "imagesTr", d / "imagesTs", dirs_exist_ok=True),
        "case lab_000: the id is used in imagesTr and in imagesTs",
    ),
    "copy under another name": (
        lambda d: shutil.copy(d / "imagesTr" / CHANNELS[0], d / "imagesUn/unl_000_0000.nii.gz"),
        "lab_000 (labeled) and unl_000 (unlabeled) hold the same image, voxel for voxel",
    ),
    "no channel number": (
        lambda d: volume(d / "imagesUn" / "scan.nii.gz"),
        "imagesUn: scan.nii.gz: has no channel number",
    ),
    "wrong ending": (
        lambda d: volume(d / "imagesTr" / "x_0000.nrrd"),
        "imagesTr: x_0000.nrrd: wrong file ending",
    ),
    "wrong ending of a label": (
        lambda d: volume(d / "labelsTr" / "x.nrrd"),
        "labelsTr: x.nrrd: wrong file ending; the data set's is .nii.gz",
    ),
    "two dimensions": (
        lambda d: volume(d / "imagesUn" / "unl_000_0000.nii.gz", noise()[0], (1, 1)),
        "has 2 dimensions; 3 are expected",
    ),
    "channels in a fourth dimension": (
        stack_channels,
        "the images hold their channels in a fourth dimension. nnU-Net reads such files, but",
    ),
    "unit": (
        lambda d: [
            volume(d / "imagesUn" / f"unl_000_000{i}.nii.gz", noise(i + 50), (0.1,) * 3)
            for i in (0, 1)
        ],
        "case unl_000: has the spacing (0.1, 0.1, 0.1), about 10 times smaller on all axes",
    ),
    "number of cases": (
        lambda d: edit(d / "dataset.json", lambda c: c.update(numTraining=5)),
        "numTraining is 5, imagesTr has 3 cases",
    ),
    "gap in the labels": (drop_labels, "the label values are [0, 1, 5]; they must be 0, 1, 2 ..."),
    "no background": (
        lambda d: edit(d / "dataset.json", lambda c: c["labels"].pop("background")),
        "the labels are not usable: Background label not declared",
    ),
    "ignore label in between": (
        lambda d: edit(d / "dataset.json", lambda c: c["labels"].update(ignore=1, other=2)),
        "If you use the ignore label it must have the highest label value",
    ),
    "regions without order": (
        lambda d: edit(d / "dataset.json", lambda c: c["labels"].update(all=[1, 2])),
        "define regions_class_order",
    ),
    "ending without reader": (
        lambda d: edit(d / "dataset.json", lambda c: c.update(file_ending=".jpg")),
        "nnU-Net reads no files that end in '.jpg'",
    ),
    "key missing": (
        lambda d: edit(d / "dataset.json", lambda c: c.pop("numTraining")),
        "the key 'numTraining' is missing",
    ),
    "no json": (
        lambda d: (d / "dataset.json").write_text("{"),
        "cannot be read",
    ),
    "nothing to validate": (
        lambda d: split(d, ["lab_000", "lab_001", "lab_002"], []),
        "splits_final.json, fold 0: 'val' is empty; nnU-Net validates after every epoch",
    ),
    "case of the split that is not there": (
        lambda d: split(d, ["lab_000", "lab_007"], ["lab_001"]),
        "splits_final.json, fold 0: 'train' names cases not in imagesTr: lab_007",
    ),
    "trained and validated on": (
        lambda d: split(d, ["lab_000", "lab_001"], ["lab_001"]),
        "splits_final.json, fold 0: in 'train' and in 'val': lab_001; name each case in one of",
    ),
    "hidden file that nnU-Net takes for an image": (
        lambda d: (d / "imagesTr" / "._lab_000_0000.nii.gz").write_bytes(b"junk"),
        "imagesTr: ._lab_000_0000.nii.gz: nnU-Net takes every file that ends in .nii.gz",
    ),
    "no training image": (
        lambda d: shutil.rmtree(d / "imagesTr"),
        "imagesTr has no <case>_0000.nii.gz",
    ),
}
