"""A data set for each budget, in which no label is that a training must not see."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.benchmark.cases import choose_cases
from nnunet_semisup.benchmark.design import Layout, Row
from nnunet_semisup.benchmark.estimate import estimate
from nnunet_semisup.benchmark.execute import Place
from nnunet_semisup.benchmark.leaks import FILE, check_leaks
from nnunet_semisup.benchmark.planning import describe
from nnunet_semisup.benchmark.prepare import _cut_features, plan, prepare
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import find_dataset
from tests.helpers import make_raw_dataset, nnunet_folders, write_image
from tests.unit.benchmark.shared import commands_in_process, make_dataset, make_design


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    return make_dataset(nnunet_folders(tmp_path, monkeypatch).raw)


def ids(folder):
    return sorted({path.name.split(".")[0].removesuffix("_0000") for path in folder.iterdir()})


def test_plans_see_the_labels_of_the_budget_alone(dataset, tmp_path):
    design = make_design(dataset, Row("nnUNetTrainerUAMT", inserts=("nsda",)))
    layout = Layout(tmp_path / "benchmark")
    raw, preprocessed = layout.budget(2) / "raw" / design.dataset, layout.preprocessed(design, 2)
    with commands_in_process() as called:
        plan(layout, design, 2, 1)
        assert ids(raw / "imagesTr") == ids(raw / "labelsTr") == ["lab_000", "lab_001"]
        assert ids(raw / "imagesUn") == ["lab_002", "unl_000", "unl_001"]
        fingerprint = (preprocessed / "dataset_fingerprint.json").read_text()
        assert len(json.loads(fingerprint)["spacings"]) == 2
        plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
        found = estimate(layout, design, Place("cpu", threads=1))
        prepare(layout, design, 2, 1)
        assert (preprocessed / "dataset_fingerprint.json").read_text() == fingerprint
        assert json.loads((preprocessed / "nnUNetPlans.json").read_text()) == plans
        before = list(called)
        prepare(layout, design, 2, 1)
    assert called == before, "what is done is not done again"
    network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert network["features_per_stage"] == [4, 8, 8, 8][: network["n_stages"]]
    (split,) = json.loads((preprocessed / "splits_final.json").read_text())
    assert split == {"train": ["lab_000", "lab_001"], "val": ["lab_003", "lab_004"]}
    hidden = {path.parent.name for path in layout.budget(2).rglob("*lab_002*")}
    assert hidden == {"imagesUn", "nnUNetPlans_3d_fullres_unlabeled"}
    assert (preprocessed / "nnUNetPlans-nsda.json").is_file()
    assert len(list((preprocessed / "nnUNetPlans_3d_fullres_unlabeled").glob("*.pkl"))) == 3
    assert not found.measured
    assert found.seconds_per_step > 0
    content = describe(layout, design, found, Place("cpu", threads=1))
    assert len(content["runs"]) == 2
    assert content["labeled"] == {"2": ["lab_000", "lab_001"]}
    assert "2 of 2 runs are left" in content["text"]
    assert content["text"].endswith(f" run {layout.folder} -device cpu --threads 1")
    assert describe(layout, design, found, Place())["text"].endswith(f" run {layout.folder}")


def test_images_are_linked_and_the_data_set_stays_as_it_is(dataset, tmp_path):
    before = {path: path.read_bytes() for path in dataset.folder.rglob("*") if path.is_file()}
    layout, design = Layout(tmp_path / "benchmark"), make_design(dataset)
    with commands_in_process():
        plan(layout, design, 2, 1)
    linked = layout.budget(2) / "raw" / design.dataset / "imagesTr" / "lab_000_0000.nii.gz"
    assert linked.samefile(dataset.folder / "imagesTr" / "lab_000_0000.nii.gz")
    assert {p: p.read_bytes() for p in dataset.folder.rglob("*") if p.is_file()} == before


def test_spacing_files_of_tif_stacks_are_linked(tmp_path, monkeypatch):
    """nnU-Net's reader takes CASE.json beside CASE_0000.tif, and 1 mm where there is none."""
    raw = nnunet_folders(tmp_path, monkeypatch).raw / "Dataset951_Stacks"
    for folder, cases in (("imagesTr", "abc"), ("imagesUn", "u"), ("labelsTr", "abc")):
        (raw / folder).mkdir(parents=True)
        for case in cases:
            channels = [""] if folder == "labelsTr" else ["_0000", "_0001"]
            for channel in channels:
                (raw / folder / f"{case}{channel}.tif").write_text(f"{folder} {case}{channel}")
            (raw / folder / f"{case}.json").write_text(json.dumps({"spacing": [3, 1, 1]}))
    names = {"0": "CT", "1": "PET"}
    content = {"channel_names": names, "file_ending": ".tif", "labels": {}, "numTraining": 3}
    (raw / "dataset.json").write_text(json.dumps(content))
    roles = {"pool": ("a", "b"), "evaluation": ("c",), "budgets": (1,), "features": ()}
    dataset = Namespace(name=raw.name, folder=raw, labeled=("a", "b", "c"))
    design, layout = make_design(dataset, **roles), Layout(tmp_path / "benchmark")
    monkeypatch.setattr("nnunet_semisup.benchmark.prepare._call", lambda *_: None)
    plan(layout, design, 1, 1)
    linked = layout.budget(1) / "raw" / raw.name
    image = ["a.json", "a_0000.tif", "a_0001.tif"]
    assert sorted(path.name for path in (linked / "imagesTr").iterdir()) == image
    assert sorted(path.name for path in (linked / "labelsTr").iterdir()) == ["a.json", "a.tif"]
    hidden = [name.replace("a", case, 1) for case in "bu" for name in image]
    assert sorted(path.name for path in (linked / "imagesUn").iterdir()) == hidden


def test_cases_that_dataset_json_lists_get_the_usual_names(dataset, tmp_path, monkeypatch):
    """nnU-Net lets the key ``dataset`` name files anywhere; a budget's data set has none."""
    source = dataset.folder
    content = json.loads((source / "dataset.json").read_text())
    for name in ("images", "labels"):
        (source / f"{name}Tr").rename(source / f"some_{name}")
    for case in dataset.labeled:
        image = source / "some_images" / f"{case}_0000.nii.gz"
        image.rename(image.with_name(f"scan of {case}.nii.gz"))
    content["dataset"] = {
        case: {
            "images": [f"some_images/scan of {case}.nii.gz"],
            "label": f"some_labels/{case}.nii.gz",
        }
        for case in dataset.labeled
    }
    (source / "dataset.json").write_text(json.dumps(content))
    monkeypatch.setattr("nnunet_semisup.benchmark.prepare._call", lambda *_: None)
    design, layout = make_design(dataset, features=()), Layout(tmp_path / "benchmark")
    plan(layout, design, 2, 1)
    linked = layout.budget(2) / "raw" / design.dataset
    assert ids(linked / "imagesTr") == ids(linked / "labelsTr") == ["lab_000", "lab_001"]
    assert (linked / "imagesTr" / "lab_000_0000.nii.gz").is_file()
    assert ids(linked / "imagesUn") == ["lab_002", "unl_000", "unl_001"]
    assert "dataset" not in json.loads((linked / "dataset.json").read_text())


def test_which_classes_were_annotated_goes_along(dataset, tmp_path, monkeypatch):
    """Without it a class that nobody annotated would be trained on as background."""
    content = json.loads((dataset.folder / "dataset.json").read_text())
    content["labels"] = {"background": 0, "blob": 1, "other": 2}
    (dataset.folder / "dataset.json").write_text(json.dumps(content))
    file = dataset.folder / "labeled_classes.json"
    file.write_text(json.dumps({case: ["blob"] for case in dataset.labeled[:3]}))
    monkeypatch.setattr("nnunet_semisup.benchmark.prepare._call", lambda *_: None)
    design, layout = make_design(dataset, features=()), Layout(tmp_path / "benchmark")
    assert choose_cases(find_dataset(950), 0).evaluation == dataset.labeled[3:]
    plan(layout, design, 2, 1)
    linked = layout.budget(2) / "raw" / design.dataset / "labeled_classes.json"
    assert json.loads(linked.read_text()) == {"lab_000": ["blob"], "lab_001": ["blob"]}
    file.write_text(json.dumps({"lab_003": ["blob"], "lab_004": ["blob", "other"]}))
    with pytest.raises(UserError, match=r"would count as background in every result: lab_003\."):
        choose_cases(find_dataset(950), 0)
    preprocessed = find_dataset(950).preprocessed
    preprocessed.mkdir()
    file.rename(preprocessed / file.name)
    with pytest.raises(UserError, match=r"Move .*labeled_classes\.json into"):
        choose_cases(find_dataset(950), 0)


def test_plans_of_a_row_that_fail_leave_the_others_theirs(dataset, tmp_path, monkeypatch, capsys):
    called = []

    def call(layout, budget, command):
        called.append(command)
        if "kmax" in command:
            raise UserError("no room for queries")

    monkeypatch.setattr("nnunet_semisup.benchmark.prepare._call", call)
    rows = [Row("nnUNetTrainerUAMT", inserts=(insert,)) for insert in ("kmax", "nsda")]
    design, layout = make_design(dataset, *rows), Layout(tmp_path / "benchmark")
    for name in ("planned", "prepared"):
        layout.budget(2).mkdir(parents=True, exist_ok=True)
        (layout.budget(2) / name).touch()
    prepare(layout, design, 2, 1)
    assert len(called) == 2
    assert "nnUNetTrainerUAMT+kmax, 2 labels: no room for queries" in capsys.readouterr().err


def test_an_evaluation_case_under_another_name_is_refused(dataset, tmp_path):
    design, layout = make_design(dataset), Layout(tmp_path / "benchmark")
    folders = find_dataset(950)
    sentences = check_leaks(layout, design, folders, 1, [])
    assert json.loads((layout.folder / FILE).read_text()) == sentences
    assert any("7 cases were compared" in sentence for sentence in sentences)
    (layout.folder / FILE).unlink()
    images = dataset.folder
    label = images / "labelsTr" / "lab_003.nii.gz"
    before = label.read_bytes()
    label.write_bytes((images / "labelsTr" / "lab_000.nii.gz").read_bytes())
    told = check_leaks(layout, design, folders, 1, [])
    assert any(
        sentence.startswith("Look at both: lab_000 (labeled) and lab_003") for sentence in told
    )
    label.write_bytes(before)
    (layout.folder / FILE).unlink()
    copy = images / "imagesUn" / "unl_000_0000.nii.gz"
    copy.write_bytes((images / "imagesTr" / "lab_003_0000.nii.gz").read_bytes())
    with pytest.raises(UserError, match=r"(?s)lab_003.*unl_000.*--leave-out unl_000"):
        check_leaks(layout, design, folders, 1, [])
    assert not (layout.folder / FILE).exists()
    assert check_leaks(layout, design, folders, 1, ["unl_000"])


def alike(voxels, seed):
    """Return an image that is no copy but looks like one: other noise, other gray values."""
    noise = np.random.default_rng(seed).normal(0, 0.02, voxels.shape)
    return 0.5 + 0.4 * (voxels + noise)


def write_alike(folder, shape, ending):
    """Let ``lab_003``, which measures, look like ``lab_000``; so do lab_004 and lab_001 in 3D."""
    voxels = np.random.default_rng(0).uniform(0, 4, [size // 4 for size in shape])
    voxels = voxels.repeat(4, 0).repeat(4, 1)
    voxels = voxels.repeat(4, 2) if len(shape) == 3 else voxels
    for seed, case in enumerate(("lab_000", "lab_003")):
        write_image(folder / "imagesTr" / f"{case}_0000{ending}", alike(voxels, seed))


def test_a_second_export_is_refused_whatever_folds_there_are(tmp_path, monkeypatch):
    """With one fold, verification knows its validation cases; of several it takes none for one."""
    raw = nnunet_folders(tmp_path, monkeypatch).raw
    shape = (48, 48, 48)
    made = make_raw_dataset(raw, 950, "Bench", shape, num_labeled=5, num_unlabeled=2)
    write_alike(made.folder, shape, ".nii.gz")
    fold = {"train": list(made.labeled[:3]), "val": list(made.labeled[3:])}
    (made.folder / "splits_final.json").write_text(json.dumps([fold, fold]))
    design, layout = make_design(made), Layout(tmp_path / "benchmark")
    with pytest.raises(
        UserError, match=r"(?s)lab_000 .*lab_003.*--leave-out lab_000 lab_001 leaves"
    ):
        check_leaks(layout, design, find_dataset(950), 1, [])
    without = make_design(made, pool=made.labeled[2:3])
    assert check_leaks(layout, without, find_dataset(950), 1, []), "the others have no role"


def test_pictures_that_look_alike_are_told_and_not_refused(tmp_path, monkeypatch, capsys):
    raw = nnunet_folders(tmp_path, monkeypatch).raw
    options = {"num_labeled": 5, "num_unlabeled": 2, "file_ending": ".png"}
    made = make_raw_dataset(raw, 950, "Bench", (64, 64), **options)
    write_alike(made.folder, (64, 64), ".png")
    design, layout = make_design(made, configuration="2d"), Layout(tmp_path / "benchmark")
    sentences = check_leaks(layout, design, find_dataset(950), 1, [])
    told = "Look at both: lab_000 (labeled) and lab_003 (validation) look like the same scan"
    assert any(sentence.startswith(told) for sentence in sentences)
    assert f"note: {told}" in capsys.readouterr().err
    copy = (made.folder / "imagesTr" / "lab_000_0000.png").read_bytes()
    (made.folder / "imagesTr" / "lab_003_0000.png").write_bytes(copy)
    with pytest.raises(UserError, match=r"lab_003 .* hold the same image, voxel for voxel"):
        check_leaks(layout, design, find_dataset(950), 1, [])


def test_files_that_cannot_be_read_stop_the_check(dataset, tmp_path):
    write_image(dataset.folder / "imagesUn" / "unl_000_0000.nii.gz", np.zeros((20, 20, 20)))
    (dataset.folder / "imagesUn" / "unl_001_0000.nii.gz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"(?s)has faults:.*unl_001"):
        check_leaks(Layout(tmp_path / "b"), make_design(dataset), find_dataset(950), 1, [])


def test_a_failed_command_is_quoted(dataset, tmp_path):
    design = make_design(dataset, planner="NoSuchPlanner")
    with pytest.raises(UserError, match=r"(?s)plan_and_preprocess .*failed.*NoSuchPlanner"):
        plan(Layout(tmp_path / "benchmark"), design, 2, 1)


def test_more_stages_than_features_are_named(dataset, tmp_path):
    design = make_design(dataset, features=(4,))
    with commands_in_process(), pytest.raises(UserError, match="--features 4: the plan has"):
        plan(Layout(tmp_path / "benchmark"), design, 2, 1)


def test_features_are_those_of_the_configuration_alone(dataset, tmp_path):
    design = make_design(dataset, features=(4, 8, 8))
    layout = Layout(tmp_path / "benchmark")
    file = layout.preprocessed(design, 2) / "nnUNetPlans.json"
    file.parent.mkdir(parents=True)
    stages = {"3d_fullres": 3, "2d": 8}
    plans = {
        name: {"architecture": {"arch_kwargs": {"n_stages": n, "features_per_stage": [32] * n}}}
        for name, n in stages.items()
    }
    file.write_text(json.dumps({"configurations": plans}))
    _cut_features(file, design)
    found = json.loads(file.read_text())["configurations"]
    features = {k: v["architecture"]["arch_kwargs"]["features_per_stage"] for k, v in found.items()}
    assert features == {"3d_fullres": [4, 8, 8], "2d": [32] * 8}


def test_what_was_accepted_when_it_was_converted_is_accepted(tmp_path, monkeypatch):
    """A label without any class and a channel without contrast; a budget has no record of that."""
    raw = nnunet_folders(tmp_path, monkeypatch).raw
    dataset = make_raw_dataset(raw, 950, "Bench", (20, 20, 20), 5, 2, 2)
    for file in ("labelsTr/lab_000.nii.gz", "imagesUn/unl_000_0001.nii.gz"):
        path = str(dataset.folder / file)
        SimpleITK.WriteImage(SimpleITK.ReadImage(path) * 0, path)
    design, layout = make_design(dataset), Layout(tmp_path / "benchmark")
    with commands_in_process():
        prepare(layout, design, 2, 1)
    assert (layout.budget(2) / "prepared").is_file()


def test_the_arguments_of_the_command_make_the_design(dataset):
    from nnunet_semisup.benchmark.planning import design_of
    from nnunet_semisup.cli.benchmark import build_parser

    parsed = build_parser().parse_args(
        ["plan", "folder", "-d", "950", "--budgets", "1", "2", "--steps", "500"]
    )
    design = design_of(parsed, find_dataset(950))
    assert design.budgets == (1, 2)
    assert design.steps == 500
    wrong = Namespace(**{**vars(parsed), "steps": 501})
    with pytest.raises(UserError, match="501 is no multiple of --steps-per-epoch 250"):
        design_of(wrong, find_dataset(950))
