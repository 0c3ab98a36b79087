"""What the messages of single faults ask for where words alone do not say which file or option."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from tests.unit.dataset_conversion import layout_faults, name_faults
from tests.unit.dataset_conversion.advice import Options, Reader
from tests.unit.dataset_conversion.trees import read
from tests.unit.dataset_conversion.trees_generic import mask, photo, scan, write
from tests.unit.dataset_conversion.trees_names import write_nifti


def _give(*options: str) -> Callable[[Reader], Options]:
    return lambda _: options


def _labels(content: dict[str, Any]) -> Callable[[Reader], Options]:
    """Write another ``labels.json``."""

    def act(reader: Reader) -> Options:
        (reader.tree.root / "labels.json").write_text(json.dumps(content))
        return ()

    return act


def _unlabeled(reader: Reader) -> Options:
    """Put two scans into a folder of their own."""
    for number in (1, 2):
        write(scan(60 + number), reader.tree.root / f"unlabeled/u{number}.nii.gz")
    return ("--extra-unlabeled", "unlabeled")


def _split(**lists: list[str]) -> Callable[[Reader], Options]:
    def act(reader: Reader) -> Options:
        (reader.tree.root / "split.json").write_text(json.dumps(lists))
        return ()

    return act


def _cases(text: str) -> Callable[[Reader], Options]:
    def act(reader: Reader) -> Options:
        (reader.tree.root / "list.txt").write_text(text)
        return ()

    return act


def _rename(old: str, new: str) -> Callable[[Reader], Options]:
    def act(reader: Reader) -> Options:
        for path in list(reader.folder.rglob(old)):
            path.rename(path.with_name(new))
        return ()

    return act


def _named_split(reader: Reader) -> Options:
    """Name cases that are there, in the place of XXXX."""
    lists = reader.tree.lists if hasattr(reader.tree, "lists") else None
    intact = reader.intact / reader.tree.split.relative_to(reader.folder)
    assert lists is None or intact.is_file()
    shutil.copy(intact, reader.tree.split)
    return ()


def _one_series_a_folder(reader: Reader) -> Options:
    """Move the files of every series to a folder of its own."""
    reader_of_tags = SimpleITK.ImageFileReader()
    for path in sorted(reader.tree.root.rglob("*.dcm")):
        reader_of_tags.SetFileName(str(path))
        reader_of_tags.ReadImageInformation()
        series = reader_of_tags.GetMetaData("0020|000e").strip()
        place = reader.tree.root / "sorted" / series
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / f"{len(list(place.iterdir()))}.dcm")
    return ()


def _to_nifti(folder: Path, target: Callable[[str], Path]) -> None:
    """What dcm2niix does with every series, but for the straightening."""
    for series in sorted({path.parent for path in folder.rglob("*.dcm")}):
        reader = SimpleITK.ImageSeriesReader()
        files = reader.GetGDCMSeriesFileNames(str(series))
        reader.SetFileNames(files)
        patient = SimpleITK.ReadImage(files[0]).GetMetaData("0010|0020").strip()
        target(patient).parent.mkdir(exist_ok=True)
        SimpleITK.WriteImage(reader.Execute(), str(target(patient)))


def _pancreas_as_nifti(reader: Reader) -> Options:
    root = reader.tree.root
    _to_nifti(root / "Pancreas-CT", lambda patient: root / "nii" / f"{patient}.nii.gz")
    return ("--source", "nii")


def _generic_as_nifti(reader: Reader) -> Options:
    root = reader.tree.root
    for path in root.rglob("many.dcm"):
        path.unlink()
    _to_nifti(root / "scans", lambda patient: root / "nifti" / f"{patient}.nii.gz")
    return ("--images", "nifti")


def _radiographs_as_png(reader: Reader) -> Options:
    for path in sorted((reader.tree.root / "scans").iterdir()):
        pixels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[0].astype(np.uint8)
        write(pixels, reader.tree.root / "png" / f"{path.stem}.png")
    return ("--images", "png")


def _contours_as_masks(reader: Reader) -> Options:
    """One mask file a structure, in a folder a case."""
    shape, spacing = layout_faults.DICOM_SHAPE, layout_faults.DICOM_SPACING
    for number in (1, 2):
        folder = reader.tree.root / f"masks/P{number}"
        shutil.rmtree(folder)
        write(mask(number, shape=shape), folder / "organ.nii.gz", spacing)
    return ()


def _scan_to_the_rest(reader: Reader) -> Options:
    """Give the folder that has the series of slices."""
    (reader.tree.root / "scans/P9").rename(reader.tree.root / "others")
    return ()


def _other_seg(reader: Reader) -> Options:
    """Resample the segmentation, or take common voxels from one of its segments."""
    root = reader.tree.root
    shutil.rmtree(root / "scans")
    shutil.rmtree(root / "masks")
    layout_faults.make_segs(root)
    return ()


def _without_label_of_its_own(reader: Reader) -> Options:
    """Move the case that is named away."""
    (reader.tree.root / "list.txt").write_text("p1")
    return ()


def _suggested(reader: Reader) -> Options:
    globs = re.findall(r"(--(?:image|label)-glob) '([^']+)'", reader.line)
    return tuple(word for pair in globs for word in pair)


def _renamed_labels(reader: Reader) -> Options:
    for path in sorted(reader.tree.labels.iterdir()):
        path.rename(path.with_name(f"p{path.name[0]}.nii.gz"))
    return ()


def _folder_a_case(reader: Reader) -> Options:
    for path in sorted(reader.tree.labels.rglob("*.nii.gz")):
        case = reader.tree.labels / path.name.removesuffix(".nii.gz")
        case.mkdir(exist_ok=True)
        path.rename(case / f"{path.parent.name}.nii.gz")
    for structure in layout_faults.ORGANS:
        (reader.tree.labels / structure).rmdir()
    return ()


def _narrower(reader: Reader) -> Options:
    return ("--image-glob", "ct_1*", "--label-glob", "seg.*")


def _same_names(reader: Reader) -> Options:
    path = reader.tree.label("p1")
    if not path.exists():
        return ("--label-map", "Vein:0")
    write_nifti(read(path), path, {1: "organ"})
    return ()


def _labels_elsewhere(reader: Reader) -> Options:
    for number, case in enumerate(("p1", "p2")):
        write(mask(number), reader.tree.root / f"drawn/{case}_m.nii.gz")
    return ("--labels", "drawn", "--label-suffix", "_m")


def _disjoint(reader: Reader) -> Options:
    (reader.tree.labels / "p1.nrrd").unlink()
    write(mask(0), reader.tree.label("p1"))
    name_faults.layers(reader.tree, overlap=False)
    return ("--label-map", "Vein:0")


def _renamed_test_cases(reader: Reader) -> Options:
    for path in sorted((reader.tree / "imagesTs").glob("lab_*")):
        path.rename(path.with_name(f"other_{path.name}"))
    return ()


def _removed(pattern: str, folder: str = "imagesUn") -> Callable[[Reader], Options]:
    def act(reader: Reader) -> Options:
        for path in list(reader.folder.rglob(pattern)):
            if path.parent.name == folder:
                path.unlink()
        return ()

    return act


def _images(*numbers: int) -> Callable[[Reader], Options]:
    def act(reader: Reader) -> Options:
        for number in numbers:
            write(scan(number), reader.tree.image(f"p{number}"))
        return ()

    return act


def _json(**content: Any) -> Callable[[Reader], Options]:
    return lambda reader: reader.edit("dataset.json", lambda found: found.update(content))


def _grey(reader: Reader) -> Options:
    """Save the picture as the others are: in colour."""
    write(photo(3), reader.tree.images / "p4_training.tif")
    return ()


def _without_alpha(reader: Reader) -> Options:
    for path in reader.tree.images.iterdir():
        write(np.ascontiguousarray(photo(int(path.name[1]))), path)
    return ()


def _upright(reader: Reader) -> Options:
    (reader.tree.images / "p4_training.jpg").unlink()
    write(photo(3), reader.tree.images / "p4_training.tif")
    return ()


def _fold(train: list[str], validation: list[str]) -> Callable[[Reader], Options]:
    def act(reader: Reader) -> Options:
        fold = {"train": train, "val": validation}
        (reader.tree / "splits_final.json").write_text(json.dumps([fold]))
        return ()

    return act


def _channels_as_files(reader: Reader) -> Options:
    for path in sorted(reader.tree.glob("images*/*_0000.nii.gz")):
        image = SimpleITK.ReadImage(str(path))
        for channel in (0, 1):
            name = path.name.replace("_0000", f"_000{channel}")
            SimpleITK.WriteImage(image[..., channel], str(path.with_name(name)))
    return ()


ORGAN = ("--label-names", "background,organ")
LABELS = {"background": 0, "organ": 1}
BLOB = {"background": 0, "blob": 1}
BY_HAND: dict[tuple[str, str], Callable[[Reader], Options]] = {
    ("la", "no labeled case"): _named_split,
    ("la", "no unlabeled case"): _named_split,
    ("pancreas", "in two folders"): _one_series_a_folder,
    ("pancreas", "two in a folder"): _one_series_a_folder,
    ("pancreas", "tilted"): _pancreas_as_nifti,
    ("generic", "channel names do not fit"): _give("--channel-names", "T1"),
    ("generic", "channel not named"): _give("--channel-names", "CT"),
    ("generic", "labels not named"): _give(*ORGAN),
    ("generic", "background not first"): _give(*ORGAN),
    ("generic", "map to an unknown label"): _give("--label-map", "255:1,1:1"),
    ("generic", "map that is none"): _give("--label-map", "255:1,1:1"),
    ("generic", "value that the map does not have"): _give("--label-map", "255:1,1:1"),
    ("generic", "regions without order"): _labels(
        {"labels": {"background": 0, "all": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    ),
    ("generic", "gap in the label values"): _labels({"labels": LABELS}),
    ("generic", "no folder of images"): _give("--images", "pictures"),
    ("generic", "two folders of images"): _give("--images", "images"),
    ("generic", "folder that is not there"): _give("--images", "images"),
    ("generic", "unlabeled scans that are not there"): _unlabeled,
    ("generic", "no unlabeled scan in its folder"): _unlabeled,
    ("generic", "a label for every image"): _give("--labeled", "2"),
    ("generic", "a single image, with its label"): _unlabeled,
    ("generic", "no label hidden"): _give("--labeled", "2"),
    ("generic", "split without unlabeled cases"): _give("--labeled", "2"),
    ("generic", "split that is no json"): _split(labeled=["p1", "p2"], unlabeled=["p4", "p5"]),
    ("generic", "no image"): _images(1, 4),
    ("generic", "no label"): _labels_elsewhere,
    ("generic", "segments that overlap"): _disjoint,
    ("generic", "all labels kept for validation"): _cases("p3"),
    ("generic", "name that nnU-Net misunderstands"): _rename("p4_seg.nii.gz", "p4.nii.gz"),
    ("generic", "suffix that a file lacks"): _rename("p4.nii.gz", "p4_ct.nii.gz"),
    ("generic", "too many validation cases"): _give("--validation", "2"),
    ("generic", "unknown validation case"): _cases("p1"),
    ("generic", "labeled case without a label"): _cases("p1"),
    ("generic", "more labels than there are"): _give("--labeled", "3"),
    ("generic", "split that names a case twice"): _split(labeled=["p1"], unlabeled=["p4"]),
    ("generic", "split of another kind"): _give("--split", "seed:42"),
    ("generic", "group that fits no case"): _give("--group-regex", "^(p[0-9])"),
    ("generic", "group that is no pattern"): _give("--group-regex", "^(p[0-9])"),
    ("generic", "several images in a case's folder"): _narrower,
    ("generic", "several labels in a case's folder"): _narrower,
    ("generic", "link of files that must be rewritten"): _give("--link", "copy"),
    ("generic", "link of files that are turned"): _give("without:--link"),
    ("generic", "pictures to be turned"): _give("without:--reorient"),
    ("generic", "label that names what no label is"): _same_names,
    ("generic", "label that names another value than --label-map"): _same_names,
    ("generic", "label that names a part of its values"): _give("--label-map", "2:0,vein:0"),
    ("generic", "two labels that name one value differently"): _give(
        "--label-map", "Leber:1,Milz:1"
    ),
    ("generic", "layer of no label"): _give("--label-map", "Vein:0"),
    ("generic", "labels of the same name"): _give("--label-names", "background,organ,vein"),
    ("generic", "name mapped twice"): _give("--label-map", "tumour:1"),
    ("generic", "photograph stored rotated"): _upright,
    ("generic", "grey picture among colours"): _grey,
    ("generic", "alpha channel"): _without_alpha,
    ("generic", "values not mapped"): _give("--label-map", "255:1"),
    ("generic", "radiographs"): _radiographs_as_png,
    ("generic", "contours as labels"): _contours_as_masks,
    ("generic", "contours without a scan"): _scan_to_the_rest,
    ("generic", "report without a scan"): _scan_to_the_rest,
    ("generic", "several frames in a DICOM file"): _generic_as_nifti,
    ("generic", "tilted DICOM series"): _generic_as_nifti,
    ("generic", "DICOM SEG on another grid"): _other_seg,
    ("generic", "DICOM SEG with segments that overlap"): _other_seg,
    ("generic", "fourth dimension that nothing explains"): _give("--channel-names", "T2,ADC"),
    ("generic", "BIDS tree without options"): _suggested,
    ("generic", "a folder a case without options"): _suggested,
    ("generic", "two runs of a BIDS scan"): _give("--image-glob", "sub-??_T1w.nii.gz"),
    ("generic", "folder named for two uses"): _give("without:--extra-unlabeled"),
    ("generic", "names with nothing in common"): _renamed_labels,
    ("generic", "images and labels side by side"): _give(
        "--images", ".", "--labels", ".", "--label-suffix", "_seg"
    ),
    ("generic", "a folder a structure"): _folder_a_case,
    ("verify", "gap in the labels"): _json(labels=BLOB),
    ("verify", "no background"): _json(labels=BLOB),
    ("verify", "ignore label in between"): _json(labels={**BLOB, "ignore": 2}),
    ("verify", "regions without order"): _json(
        labels={"background": 0, "blob": [1]}, regions_class_order=[1]
    ),
    ("verify", "number of cases"): _json(numTraining=3),
    ("verify", "image missing"): _json(numTraining=2),
    ("verify", "key missing"): _json(numTraining=3),
    ("verify", "ending without reader"): _json(file_ending=".nii.gz"),
    ("verify", "id in two folders"): _removed("lab_*"),
    ("verify", "hidden file that nnU-Net takes for an image"): _removed("._*", "imagesTr"),
    ("verify", "copy under another name"): _removed("unl_000_*"),
    ("verify", "id in training and test"): _renamed_test_cases,
    ("verify", "no channel number"): _rename("scan.nii.gz", "scan_0000.nii.gz"),
    ("verify", "channels in a fourth dimension"): _channels_as_files,
    ("verify", "unit"): Reader.take_the_original,
    ("generic", "no label with foreground"): Reader.extract_again,
    ("verify", "no label with foreground"): Reader.extract_again,
    ("verify", "nothing to validate"): _fold(["lab_000", "lab_001"], ["lab_002"]),
    ("verify", "case of the split that is not there"): _fold(["lab_000"], ["lab_001"]),
    ("verify", "trained and validated on"): _fold(["lab_000", "lab_002"], ["lab_001"]),
}
