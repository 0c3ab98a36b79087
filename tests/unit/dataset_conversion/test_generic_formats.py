"""Every format of scans and pictures, and copies of pictures."""

import numpy as np
import pytest
import SimpleITK
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from PIL import Image

from nnunet_semisup.dataset_conversion.reading.formats import read_image, read_label
from tests.unit.dataset_conversion.trees import read, texture
from tests.unit.dataset_conversion.trees_generic import (
    LABELED,
    PHOTO_OPTIONS,
    UNLABELED,
    WHAT,
    content,
    convert,
    made,
    make_folders,
    make_photos,
    mask,
    names,
    photo,
    scan,
    write,
)


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".nii.gz"])
def test_every_format_of_a_scan(roots, tmp_path, ending):
    folders = make_folders(tmp_path / "data", ending)
    assert convert(folders.root, *WHAT) == 0
    made_file = made(roots) / "imagesTr" / "p1_0000.nii.gz"
    np.testing.assert_array_equal(read(made_file), scan(0))
    spacing = SimpleITK.ReadImage(str(made_file)).GetSpacing()
    np.testing.assert_allclose(spacing, (1, 1, 2))
    if ending == ".nii.gz":
        assert made_file.read_bytes() == folders.image("p1").read_bytes()


def test_tif_stacks(roots, folders, capsys):
    for seed, case in enumerate(LABELED + UNLABELED):
        for array, old in ((scan(seed), folders.image(case)), (mask(seed), folders.label(case))):
            if old.is_file():
                old.unlink()
                tifffile.imwrite(old.parent / f"{case}.tif", array, photometric="minisblack")
                (old.parent / f"{case}.json").write_text('{"spacing": [3.0, 0.5, 0.5]}')
    assert convert(folders.root, *WHAT) == 0
    image = SimpleITK.ReadImage(str(made(roots) / "imagesUn" / "p4_0000.nii.gz"))
    np.testing.assert_allclose(image.GetSpacing(), (0.5, 0.5, 3))
    (folders.images / "p4.json").unlink()
    assert convert(folders.root, *WHAT, "--overwrite") == 2
    assert "a tif stack holds no voxel size; write p4.json beside it" in capsys.readouterr().err


def test_colour_photographs_with_gif_masks(roots, photos):
    assert convert(photos.root, *PHOTO_OPTIONS, "--validation", "1", "--link", "hardlink") == 0
    folder = made(roots)
    assert names(folder / "imagesTr") == [f"{c}_0000" for c in LABELED]
    assert content(roots)["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert content(roots)["file_ending"] == ".tif"
    image, _ = NaturalImage2DIO().read_images([str(folder / "imagesTr" / "p1_0000.tif")])
    np.testing.assert_array_equal(image[:, 0].transpose(1, 2, 0), photo(0))
    label, _ = NaturalImage2DIO().read_seg(str(folder / "labelsTr" / "p1.tif"))
    np.testing.assert_array_equal(label[0, 0], mask(0, 1, (60, 72)))
    assert (folder / "imagesUn" / "p4_0000.tif").samefile(photos.images / "p4_training.tif")


@pytest.mark.parametrize(
    ("source", "written", "ready"),
    [(".png", ".png", True), (".bmp", ".bmp", True), (".jpg", ".png", False),
     (".tiff", ".tif", False), (".gif", ".png", False)],
)  # fmt: skip
def test_every_format_of_a_picture(roots, tmp_path, source, written, ready):
    photos = make_photos(tmp_path / "data", source, ".png")
    assert convert(photos.root, *PHOTO_OPTIONS) == 0
    assert content(roots)["file_ending"] == written
    original = photos.images / f"p1_training{source}"
    path = made(roots) / "imagesTr" / f"p1_0000{written}"
    image, _ = NaturalImage2DIO().read_images([str(path)])
    with Image.open(original) as picture:
        expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(image[:, 0].transpose(1, 2, 0), expected)
    assert (path.read_bytes() == original.read_bytes()) == ready
    label, _ = NaturalImage2DIO().read_seg(str(made(roots) / "labelsTr" / f"p1{written}"))
    np.testing.assert_array_equal(label[0, 0], mask(0, 1, (60, 72)))


def test_mixed_formats_become_png(roots, photos):
    for path in photos.images.glob("*.tif"):
        with Image.open(path) as picture:
            picture.save(path.with_suffix(".png" if "p1" in path.name else ".jpg"))
        path.unlink()
    assert convert(photos.root, *PHOTO_OPTIONS) == 0
    assert content(roots)["file_ending"] == ".png"
    np.testing.assert_array_equal(
        np.asarray(Image.open(made(roots) / "imagesTr" / "p1_0000.png")), photo(0)
    )


def test_masks_in_any_disguise(tmp_path):
    expected = mask(0, 1, (20, 24))
    picture = Image.fromarray(expected, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "indexed.png")
    Image.fromarray(np.stack([expected] * 3, axis=-1)).save(tmp_path / "three_equal.png")
    Image.fromarray(expected.astype(bool)).save(tmp_path / "one_bit.png")
    Image.fromarray(expected.astype(np.uint16)).save(tmp_path / "sixteen.png")
    tifffile.imwrite(tmp_path / "float.tif", expected.astype(np.float32))
    for path in tmp_path.iterdir():
        found = read_label(path)
        np.testing.assert_array_equal(found.array, expected, err_msg=path.name)
        assert found.geometry.size == (24, 20)


def test_reading_is_what_nnunet_reads(tmp_path):
    for number, ending in enumerate((".png", ".bmp", ".tif")):
        write(photo(number), tmp_path / f"x{ending}")
        image, _ = NaturalImage2DIO().read_images([str(tmp_path / f"x{ending}")])
        array = read_image(tmp_path / f"x{ending}").array
        np.testing.assert_array_equal(image[:, 0].transpose(1, 2, 0), array)


def similar_slices(seed, number, shape=(200, 220)):
    """Slices of one scan: the same but for little."""
    detail = texture(seed, shape).astype(float)
    return [
        (0.95 * detail + 0.05 * texture(seed + 50 + i, shape)).astype(np.uint8)
        for i in range(number)
    ]


def test_copy_of_a_picture_is_found_but_not_within_a_patient(roots, tmp_path, capsys):
    root = tmp_path / "slices"
    slices = {"a_1": similar_slices(1, 2)[0], "a_2": similar_slices(1, 2)[1]}
    slices |= {"b_1": texture(2, (200, 220)), "c_1": texture(3, (200, 220))}
    for case, array in slices.items():
        write(array, root / "images" / f"{case}.png")
    write(mask(0, 1, (200, 220)), root / "labels" / "b_1.png")
    assert convert(root, *WHAT) == 0
    out = capsys.readouterr().out
    assert out.count("look like the same scan") == 1
    assert "a_1 (unlabeled) and a_2 (unlabeled)" in out
    assert convert(root, *WHAT, "--group-regex", "^(.)_", "--overwrite") == 0
    assert "look like the same scan" not in capsys.readouterr().out


def test_photographs_of_one_kind_are_no_copies(roots, photos, tmp_path, capsys):
    """All have the same vignette; only one of them is another crop of a second."""
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 240), np.linspace(-1, 1, 260), indexing="ij"))
    light = 150 * np.exp(-2 * (grid**2).sum(axis=0))
    pictures = [(light + 0.15 * texture(seed, light.shape)) for seed in range(4)]
    pictures.append(np.pad(pictures[3][8:, 5:], ((0, 8), (0, 5)), mode="edge"))
    for number, array in enumerate(pictures):
        write(array.astype(np.uint8), tmp_path / "v" / "images" / f"p{number}.png")
    write(mask(0, 1, light.shape), tmp_path / "v" / "labels" / "p0.png")
    assert convert(tmp_path / "v", *WHAT) == 0
    out = capsys.readouterr().out
    assert out.count("look like the same scan") == 1
    assert "p3 (unlabeled) and p4 (unlabeled)" in out
