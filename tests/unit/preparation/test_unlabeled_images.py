import gzip
import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.preprocessing import preprocess_unlabeled
from nnunet_semisup.preparation.raw import find_dataset
from nnunet_semisup.preparation.unlabeled_images import check_dataset
from tests.helpers import make_raw_dataset, nnunet_folders, write_image

SHAPE = (16, 20, 18)
SPACING = (2.0, 1.0, 1.0)
FIRST = "unl_000_0000.nii.gz"
SECOND = "unl_000_0001.nii.gz"


def _noise(shape=SHAPE):
    return np.random.default_rng(0).random(shape)


def _missing_channel(planned):
    (planned.images / SECOND).unlink()


def _extra_channel(planned):
    shutil.copy(planned.images / FIRST, planned.images / "unl_000_0002.nii.gz")


def _wrong_ending(planned):
    (planned.images / SECOND).rename(planned.images / "unl_000_0001.nrrd")


def _no_channel_number(planned):
    shutil.copy(planned.images / FIRST, planned.images / "scan.nii.gz")


def _sub_folder(planned):
    (planned.images / "patient").mkdir()


def _two_dimensional(planned):
    for name in (FIRST, SECOND):
        write_image(planned.images / name, _noise((20, 18)))


def _four_dimensional(planned):
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(_noise())] * 2)
    for name in (FIRST, SECOND):
        SimpleITK.WriteImage(image, str(planned.images / name))


def _metres(planned):
    for name in (FIRST, SECOND):
        content = bytearray(gzip.decompress((planned.images / name).read_bytes()))
        content[123] = 1  # xyzt_units
        (planned.images / name).write_bytes(gzip.compress(bytes(content)))


def _scaled_spacing(factor):
    def corrupt(planned):
        for name in (FIRST, SECOND):
            write_image(planned.images / name, _noise(), [s * factor for s in SPACING])

    return corrupt


def _other_shape(planned):
    write_image(planned.images / SECOND, _noise((16, 20, 17)), SPACING)


def _other_spacing(planned):
    write_image(planned.images / SECOND, _noise(), (2.1, 1.0, 1.0))


def _shifted(planned):
    image = SimpleITK.ReadImage(str(planned.images / SECOND))
    image.SetOrigin((0.5, 0.0, 0.0))
    SimpleITK.WriteImage(image, str(planned.images / SECOND))


def _truncated(planned):
    content = (planned.images / FIRST).read_bytes()
    (planned.images / FIRST).write_bytes(content[: len(content) // 2])


def _wrong_checksum(planned):
    content = bytearray((planned.images / FIRST).read_bytes())
    content[-6] ^= 0xFF
    (planned.images / FIRST).write_bytes(bytes(content))


def _truncated_before_compression(planned):
    content = gzip.decompress((planned.images / FIRST).read_bytes())
    (planned.images / FIRST).write_bytes(gzip.compress(content[: len(content) // 2]))


def _empty_file(planned):
    (planned.images / FIRST).write_bytes(b"")


def _not_an_image(planned):
    (planned.images / FIRST).write_bytes(gzip.compress(b"something else" * 100))


def _broken_link(planned):
    (planned.images / FIRST).unlink()
    (planned.images / FIRST).symlink_to(planned.images / "nowhere.nii.gz")


def _with_value(value):
    def corrupt(planned):
        image = nibabel.load(planned.images / FIRST)
        array = np.array(image.dataobj)
        array[:3, 0, 0] = value
        nibabel.save(nibabel.Nifti1Image(array, image.affine), planned.images / FIRST)

    return corrupt


def _constant(planned):
    for name in (FIRST, SECOND):
        write_image(planned.images / name, np.zeros(SHAPE), SPACING)


def _named_like(identifier):
    def corrupt(planned):
        for channel in range(2):
            source = planned.images / f"unl_000_{channel:04d}.nii.gz"
            source.rename(planned.images / f"{identifier}_{channel:04d}.nii.gz")

    return corrupt


FAULTS = {
    "missing channel": (_missing_channel, ["case unl_000: channel 1 is missing", SECOND]),
    "extra channel": (_extra_channel, ["case unl_000: unexpected channel 2", "2 file(s) a case"]),
    "wrong ending": (_wrong_ending, ["unl_000_0001.nrrd: wrong file ending", ".nii.gz"]),
    "no channel number": (_no_channel_number, ["scan.nii.gz: has no channel number"]),
    "sub-folder": (_sub_folder, ["patient: is a folder"]),
    "2D": (_two_dimensional, ["case unl_000", "2-dimensional", "3-dimensional"]),
    "4D": (_four_dimensional, ["case unl_000", "4-dimensional"]),
    "metres": (_metres, ["case unl_000", "metre", "xyzt_units"]),
    "spacing times 10": (_scaled_spacing(10), ["case unl_000", "about 10 times larger", "20, 10"]),
    "spacing / 100": (_scaled_spacing(0.01), ["case unl_000", "about 100 times smaller"]),
    "spacing / 1000": (_scaled_spacing(0.001), ["case unl_000", "about 1000 times smaller"]),
    "shape of channels": (_other_shape, ["case unl_000: channels", "differ in shape"]),
    "spacing of channels": (_other_spacing, ["case unl_000: channels", "differ in spacing"]),
    "origin of channels": (_shifted, ["case unl_000: channels", "differ in origin"]),
    "truncated": (_truncated, ["case unl_000", FIRST, "truncated"]),
    "checksum": (_wrong_checksum, ["case unl_000", FIRST, "cannot be read to its end"]),
    "truncated inside": (_truncated_before_compression, ["case unl_000", FIRST, "truncated"]),
    "empty file": (_empty_file, ["case unl_000", FIRST, "0 bytes"]),
    "not an image": (_not_an_image, ["case unl_000", FIRST, "no readable header"]),
    "broken link": (_broken_link, ["case unl_000", FIRST, "is a link to", "which is not there"]),
    "NaN": (_with_value(np.nan), ["case unl_000", FIRST, "3 of 5760 voxels that are NaN"]),
    "Inf": (_with_value(np.inf), ["case unl_000", FIRST, "3 of 5760 voxels that are infinite"]),
    "constant": (
        _constant,
        [
            f"case unl_000: {name}: every voxel has the value 0 like all channels"
            for name in (FIRST, SECOND)
        ],
    ),
    "id of imagesTr": (_named_like("lab_001"), ["case lab_001", "also used in imagesTr"]),
    "id of imagesTs": (_named_like("tst_000"), ["case tst_000", "also used in imagesTs"]),
    "id ends in _seg": (_named_like("x_seg"), ["case x_seg", "must not end in '_seg'"]),
}


def _check(with_plans):
    if with_plans:
        preprocess_unlabeled(501, num_processes=[0], show_progress=False)
    else:
        check_dataset(find_dataset(501), show_progress=False)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("with_plans", [True, False], ids=["planned", "unplanned"])
def test_fault_is_refused_and_nothing_is_written(planned, name, with_plans):
    corrupt, fragments = FAULTS[name]
    corrupt(planned)
    if not with_plans:
        shutil.rmtree(planned.preprocessed)
    before = planned.snapshot()
    with pytest.raises(UserError) as caught:
        _check(with_plans)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert "unl_002" not in str(caught.value)
    assert planned.snapshot() == before


def test_all_faults_come_in_one_message(planned):
    _truncated(planned)
    _named_like("lab_000")(planned)
    shutil.copy(planned.images / "unl_001_0000.nii.gz", planned.images / "unl_001_0007.nii.gz")
    (planned.images / "unl_002_0001.nii.gz").unlink()
    (planned.images / "notes.txt").write_text("text")
    with pytest.raises(UserError) as caught:
        check_dataset(find_dataset(501), show_progress=False)
    message = str(caught.value)
    for part in (
        "lab_000: the id is also",
        "truncated",
        "unl_001: unexpected channel 7",
        "unl_002: channel 1 is missing",
        "notes.txt: wrong file ending",
    ):
        assert part in message
    assert message.count("\n  - ") == 5


def test_junk_is_ignored_and_told(planned):
    for name in (".DS_Store", "._unl_000_0000.nii.gz", "desktop.ini", "Thumbs.db"):
        (planned.images / name).write_bytes(b"junk")
    (planned.images / "__MACOSX").mkdir()
    checked = check_dataset(find_dataset(501), show_progress=False)
    assert [case.identifier for case in checked.cases] == list(planned.raw.unlabeled)
    assert len(checked.notes) == 5
    assert all("ignored in imagesUn" in note for note in checked.notes)


def test_clean_cases_are_described(planned):
    checked = check_dataset(find_dataset(501), show_progress=False)
    case = checked.cases[0]
    assert [path.name for path in case.images] == [FIRST, SECOND]
    assert [source.name for source in case.sources] == [FIRST, SECOND]
    assert case.sources[0].size == (planned.images / FIRST).stat().st_size
    assert len({source.sha256 for c in checked.cases for source in c.sources}) == 6
    assert checked.notes == ()


def test_spacing_within_the_range_of_training_passes(planned):
    _scaled_spacing(1.3)(planned)
    assert len(check_dataset(find_dataset(501), show_progress=False).cases) == 3


def test_known_unchanged_cases_are_not_read_again(planned, monkeypatch):
    checked = check_dataset(find_dataset(501), show_progress=False)
    known = {case.identifier: case.sources for case in checked.cases}
    read = []
    monkeypatch.setattr(
        "nnunet_semisup.preparation.unlabeled_images.inspect_unlabeled",
        lambda name, *_: read.append(name),
    )
    again = check_dataset(find_dataset(501), known=known, show_progress=False)
    assert again.cases == checked.cases
    assert read == []


@pytest.mark.parametrize("state", ["absent", "empty", "only junk"])
def test_no_unlabeled_case_at_all_tells_both_ways(planned, state):
    shutil.rmtree(planned.images)
    if state != "absent":
        planned.images.mkdir()
    if state == "only junk":
        (planned.images / ".DS_Store").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        check_dataset(find_dataset(501), show_progress=False)
    assert str(planned.images) in str(caught.value)
    assert "'unlabeled': [ids]" in str(caught.value)


@pytest.mark.parametrize("place", ["raw", "preprocessed"])
def test_key_of_the_splits_replaces_the_images(planned, place):
    shutil.rmtree(planned.images)
    folder = planned.raw.folder if place == "raw" else planned.preprocessed
    splits = [{"train": ["lab_000"], "val": ["lab_001"], "unlabeled": ["lab_002"]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    checked = check_dataset(find_dataset(501), show_progress=False)
    assert checked.cases == ()
    assert checked.folds_with_key == (0,)
    assert any("has no images in imagesUn" in note for note in checked.notes)


def test_wrong_key_of_the_splits_is_refused(planned):
    splits = [{"train": ["lab_000"], "val": ["lab_001"], "unlabeled": ["lab_000", "unl_000"]}]
    (planned.raw.folder / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(UserError) as caught:
        check_dataset(find_dataset(501), show_progress=False)
    assert "case lab_000: is also in 'train'" in str(caught.value)
    assert "case unl_000: unknown" in str(caught.value)


def test_key_without_effect_is_told(planned):
    fold = {"train": ["lab_000"], "val": ["lab_001"]}
    (planned.preprocessed / "splits_final.json").write_text(json.dumps([fold]))
    fold_with_key = {**fold, "unlabeled": ["lab_002"]}
    (planned.raw.folder / "splits_final.json").write_text(json.dumps([fold_with_key]))
    checked = check_dataset(find_dataset(501), show_progress=False)
    assert any("has no effect" in note for note in checked.notes)


def test_unset_folders_and_unknown_data_sets_are_refused(planned, monkeypatch):
    with pytest.raises(UserError, match="999"):
        find_dataset(999)
    with pytest.raises(UserError, match="nonsense"):
        find_dataset("nonsense")
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(UserError, match="Type for example: export nnUNet_raw="):
        find_dataset(501)


@pytest.mark.parametrize(
    ("corrupt", "fragment"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:200]), "cannot be read by NaturalImage2DIO"),
        (lambda p: write_image(p, np.full((24, 24), np.pi)), "every voxel has the value 145"),
    ],
    ids=["truncated", "constant"],
)
def test_faults_of_natural_images(tmp_path, monkeypatch, corrupt, fragment):
    folders = nnunet_folders(tmp_path, monkeypatch)
    made = make_raw_dataset(folders.raw, 502, "Flat", (24, 24), 2, 2, file_ending=".png")
    corrupt(made.folder / "imagesUn" / "unl_001_0000.png")
    with pytest.raises(UserError) as caught:
        check_dataset(find_dataset(502), show_progress=False)
    assert "case unl_001" in str(caught.value)
    assert fragment in str(caught.value)
    assert "unl_000" not in str(caught.value)


def test_nan_in_a_format_other_than_nifti(tmp_path, monkeypatch):
    folders = nnunet_folders(tmp_path, monkeypatch)
    made = make_raw_dataset(folders.raw, 502, "Nrrd", SHAPE, 2, 1, file_ending=".nrrd")
    array = _noise()
    array[0, 0, 0] = np.nan
    write_image(made.folder / "imagesUn" / "unl_000_0000.nrrd", array)
    with pytest.raises(UserError, match="1 of 5760 voxels that are NaN"):
        check_dataset(find_dataset(502), show_progress=False)


@pytest.fixture
def tif_images(tmp_path, monkeypatch):
    """``imagesUn`` with one 3D tif, whose spacing is in a JSON file beside it."""
    folders = nnunet_folders(tmp_path, monkeypatch)
    raw = folders.raw / "Dataset505_Tif"
    for folder, name in (("imagesTr", "lab_000"), ("imagesUn", "unl_000")):
        (raw / folder).mkdir(parents=True)
        tifffile.imwrite(raw / folder / f"{name}_0000.tif", _noise().astype(np.float32))
        (raw / folder / f"{name}.json").write_text(json.dumps({"spacing": SPACING}))
    content = {"channel_names": {"0": "EM"}, "file_ending": ".tif"}
    (raw / "dataset.json").write_text(json.dumps(content))
    return raw / "imagesUn"


def test_side_file_of_a_tif_is_one_of_its_sources(tif_images):
    (case,) = check_dataset(find_dataset(505), show_progress=False).cases
    assert [path.name for path in case.images] == ["unl_000_0000.tif"]
    assert [source.name for source in case.sources] == ["unl_000_0000.tif", "unl_000.json"]
    (tif_images / "unl_000.json").write_text(json.dumps({"spacing": [0.002, 0.001, 0.001]}))
    with pytest.raises(UserError, match="about 1000 times smaller"):
        check_dataset(find_dataset(505), show_progress=False)


def test_json_file_of_no_case_is_refused(tif_images):
    (tif_images / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"other\.json: wrong file ending"):
        check_dataset(find_dataset(505), show_progress=False)


def test_colour_image_among_grey_ones_has_too_many_channels(tmp_path, monkeypatch):
    folders = nnunet_folders(tmp_path, monkeypatch)
    made = make_raw_dataset(folders.raw, 502, "Flat", (24, 24), 2, 1, file_ending=".png")
    colour = np.random.default_rng(0).integers(0, 255, (24, 24, 3)).astype(np.uint8)
    image = SimpleITK.GetImageFromArray(colour, isVector=True)
    SimpleITK.WriteImage(image, str(made.folder / "imagesUn" / "unl_000_0000.png"))
    with pytest.raises(UserError, match="case unl_000: has 3 channels"):
        check_dataset(find_dataset(502), show_progress=False)
