import argparse
import json
import os
import shutil
from pathlib import Path

import pytest
import SimpleITK
from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as stock
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
)

from nnunet_semisup import parallel
from nnunet_semisup.cli import plan_and_preprocess, preprocess
from nnunet_semisup.cli._planning import refuse_unknown_configurations
from nnunet_semisup.errors import UserError
from tests.helpers import make_raw_dataset, nnunet_folders, nnunet_in_process


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A raw data set, and all background work in this process."""
    folders = nnunet_folders(tmp_path, monkeypatch)
    monkeypatch.setattr(parallel, "_in_processes", parallel._in_this_process)
    made = make_raw_dataset(folders.raw, 504, "Cli", (16, 16, 16), 2, 2, channel_name="CT")
    with nnunet_in_process():
        yield folders.preprocessed / made.name, made


def run(command, *arguments):
    with pytest.raises(SystemExit) as caught:
        command.main(list(arguments))
    return caught.value.code


def plan(*arguments):
    return run(plan_and_preprocess, "-d", "504", "-np", "1", "-npfp", "1", "--no_pbar", *arguments)


class _Captured(Exception):  # noqa: N818
    pass


def stock_actions(entry, monkeypatch):
    """What nnU-Net's own parser accepts: option strings, default, arguments and type."""
    captured = []

    def capture(self, *_):
        captured.append(self)
        raise _Captured

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", capture)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", capture)
        with pytest.raises(_Captured):
            entry()
    return actions(captured[0])


def actions(parser):
    return {
        tuple(a.option_strings): (type(a).__name__, a.dest, a.default, a.nargs, a.type or str)
        for a in parser._actions
    }


def test_arguments_are_those_of_nnunet(monkeypatch):
    own = actions(plan_and_preprocess.build_parser())
    expected = stock_actions(stock.plan_and_preprocess_entry, monkeypatch)
    added = ("--allow-constant-channels", "--allow-empty", "--ignore-aware-fingerprint", "--fit")
    for option in added:
        del own[option,]
    assert own == expected


def test_arguments_of_preprocess_are_those_of_nnunet(monkeypatch):
    own = actions(preprocess.build_parser())
    expected = stock_actions(stock.preprocess_entry, monkeypatch)
    del own["--verify-only",], own["--allow-constant-channels",]
    assert own.pop(("-d",))[:4] == expected.pop(("-d",))[:4]
    assert own == expected


def test_default_processes_are_those_of_nnunet():
    from nnunet_semisup.cli._preprocessing import processes_per_configuration

    names = ["2d", "3d_fullres", "3d_lowres", "other"]
    assert processes_per_configuration(names, None) == [8, 4, 8, 4]
    assert processes_per_configuration(names, [3]) == [3, 3, 3, 3]


def test_plans_where_trainings_are_to_have_no_workers(made, monkeypatch):
    """nnU-Net 2.8.1's planner makes torch's number of threads of it, and fails."""
    name = "nnUNet_n_proc_DA"
    monkeypatch.setenv(name, "0")
    assert plan("--no_pp", "-c", "2d") == 0
    assert os.environ[name] == "0"
    with pytest.raises(RuntimeError, match="positive"):
        plan_experiments([504])


def test_plan_and_preprocess_then_preprocess_again(made, capsys):
    preprocessed, _ = made
    assert plan() == 0
    for configuration in ("2d", "3d_fullres"):
        assert (preprocessed / f"nnUNetPlans_{configuration}").is_dir()
        stamp = preprocessed / f"nnUNetPlans_{configuration}_unlabeled.json"
        assert sorted(json.loads(stamp.read_text(encoding="utf-8"))["cases"]) == [
            "unl_000",
            "unl_001",
        ]
    capsys.readouterr()
    arguments = ("-d", "Dataset504_Cli", "-c", "2d", "-np", "0", "--no_pbar")
    assert run(preprocess, *arguments) == 0
    assert "0 cases to preprocess, 2 already done" in capsys.readouterr().out


def test_unlabeled_images_are_listed_and_told_of_once(made, capsys, monkeypatch):
    """The check before planning is what preprocessing works from; nothing is looked up again."""
    _, raw = made
    (raw.folder / "imagesTs").mkdir()
    listed = []
    iterdir = Path.iterdir

    def counting(folder):
        listed.append(folder.name)
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", counting)
    path = str(raw.folder / "imagesUn" / "unl_001_0000.nii.gz")
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "RAS"), path)
    assert plan("-c", "2d") == 0
    assert (listed.count("imagesUn"), listed.count("imagesTs")) == (1, 1)
    told = capsys.readouterr().out
    assert told.count("are in another orientation than those of most") == 1
    assert told.count("2 unlabeled cases passed the checks.") == 1
    listed.clear()
    assert run(preprocess, "-d", "504", "-c", "2d", "-np", "0", "--no_pbar") == 0
    assert (listed.count("imagesUn"), listed.count("imagesTs")) == (1, 1)


def test_scans_with_other_axes_are_named_before_anything_is_planned(made, capsys):
    _, raw = made
    path = str(raw.folder / "imagesUn" / "unl_001_0000.nii.gz")
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "RAS"), path)
    assert plan("--no_pp") == 0
    told = capsys.readouterr().out
    warning = "warning: the axes of 1 of 4 cases are in another orientation than those of most"
    assert told.startswith(warning)
    assert told.count(warning) == 1
    assert "imagesUn: unl_001 (RAS)." in told
    assert run(preprocess, "-d", "504", "-c", "2d", "--no_pbar", "--verify-only", "-np", "0") == 0
    assert warning in capsys.readouterr().out


def test_every_data_set_is_checked_before_the_first_is_preprocessed(made, capsys):
    preprocessed, _ = made
    assert plan("-c", "2d") == 0
    done = preprocessed / "nnUNetPlans_2d_unlabeled.json"
    done.unlink()
    shutil.rmtree(preprocessed / "nnUNetPlans_2d_unlabeled")
    arguments = ("-c", "2d", "-np", "0", "--no_pbar")
    assert run(preprocess, "-d", "504", "999", "998", *arguments) == 2
    message = capsys.readouterr().err
    assert "999" in message
    assert "998" in message
    assert not done.exists()
    assert run(preprocess, "-d", "504", "504", *arguments) == 0
    assert done.exists()


def test_unlabeled_images_do_not_touch_the_fingerprint(made):
    preprocessed, raw = made
    assert plan("--no_pp") == 0
    with_unlabeled = (preprocessed / "dataset_fingerprint.json").read_text(encoding="utf-8")
    assert not list(preprocessed.glob("*unlabeled*"))
    shutil.rmtree(raw.folder / "imagesUn")
    extract_fingerprints([504], num_processes=1, clean=True, verbose=False)
    assert (preprocessed / "dataset_fingerprint.json").read_text(encoding="utf-8") == with_unlabeled


def test_other_plans_name_gives_a_folder_of_its_own(made):
    preprocessed, _ = made
    assert plan("-c", "3d_fullres", "-overwrite_plans_name", "coarse") == 0
    assert (preprocessed / "coarse_3d_fullres_unlabeled").is_dir()
    assert not (preprocessed / "nnUNetPlans_3d_fullres_unlabeled").exists()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("-c", "3d_fullres", "3d_cascade_fullres"), "3d_cascade_fullres cannot be used"),
        (("-c", "2d", "3d_fullres", "3d_lowres", "-np", "1", "2"), "give one number"),
        (("-np", "0"), "none below 1"),
        (("-npfp", "0"), "-npfp 0 is too small"),
        (("-gpu_memory_target", "0"), "-gpu_memory_target 0: give GB, more than 0"),
        (("-overwrite_target_spacing", "1", "1"), "-overwrite_target_spacing 1 1: give three"),
        (("-overwrite_target_spacing", "1", "1", "0"), "give three positive numbers in mm"),
        (("-overwrite_target_spacing", "1", "1", "inf"), "give three positive numbers in mm"),
        (("-overwrite_target_spacing", "1", "a", "1"), "give three positive numbers in mm"),
        (("-d", "504", "999"), "999"),
        (
            ("-c", "2d", "3d_fulres"),
            "error: There is no configuration 3d_fulres; did you mean 3d_fullres? There are 2d, "
            "3d_fullres, 3d_lowres.",
        ),
        (
            ("-c", "2d", "3d_fulres", "-pl", "nnUNetPlannerResEncM"),
            "There is no configuration 3d_fulres",
        ),
        (
            ("-pl", "nnUNetPlannerResEncm"),
            "There is no planner nnUNetPlannerResEncm; did you mean nnUNetPlannerResEncM?",
        ),
        (("-pl", "other"), "There is no planner other. There are ExperimentPlanner, "),
        (
            ("-fpe", "DatasetFingerprintExtracter"),
            "no fingerprint extractor DatasetFingerprintExtracter; did you mean DatasetFinger",
        ),
        (
            ("-preprocessor_name", "DefaultPreprocesor"),
            "no preprocessor DefaultPreprocesor; did you mean DefaultPreprocessor?",
        ),
    ],
)
def test_bad_arguments_end_with_2_and_write_nothing(made, capsys, arguments, fragment):
    assert plan(*arguments) == 2
    assert fragment in capsys.readouterr().err
    assert not made[0].exists()


def test_configuration_that_a_user_added_to_the_plans_is_accepted(made, capsys):
    preprocessed, _ = made
    assert plan("--no_pp") == 0
    path = preprocessed / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    plans["configurations"]["smaller"] = {"inherits_from": "2d", "batch_size": 2}
    path.write_text(json.dumps(plans))
    assert plan("--no_pp", "-c", "smaller") == 0
    assert plan("--no_pp", "-c", "smaler") == 2
    assert "did you mean smaller?" in capsys.readouterr().err


def test_planner_with_its_own_planning_may_make_any_configuration(made):
    class Own(ExperimentPlanner):
        def plan_experiment(self):
            raise NotImplementedError

    refuse_unknown_configurations(["any"], Own, None, [504])
    with pytest.raises(UserError, match="There is no configuration any"):
        refuse_unknown_configurations(["any"], ExperimentPlanner, None, [504])


def test_unset_folders_end_with_2_and_say_what_to_type(made, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_preprocessed", "")
    assert plan() == 2
    assert capsys.readouterr().err == (
        "error: the variables nnUNet_raw and nnUNet_preprocessed are not set; they name the "
        "folders of raw data sets and preprocessed data sets. Type for example: export "
        "nnUNet_raw=$HOME/nnUNet_raw nnUNet_preprocessed=$HOME/nnUNet_preprocessed\n"
    )


def test_bad_images_end_with_2_and_write_nothing(made, capsys):
    preprocessed, raw = made
    path = raw.folder / "imagesUn" / "unl_001_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-100])
    assert plan() == 2
    assert "case unl_001: unl_001_0000.nii.gz is truncated" in capsys.readouterr().err
    assert not preprocessed.exists()


def test_no_unlabeled_cases_end_with_2_and_write_nothing(made, capsys):
    preprocessed, raw = made
    shutil.rmtree(raw.folder / "imagesUn")
    assert plan() == 2
    message = capsys.readouterr().err
    assert "put images without labels into" in message
    assert "'unlabeled': [ids]" in message
    assert not preprocessed.exists()


def test_key_of_the_splits_alone(made, capsys):
    preprocessed, raw = made
    shutil.rmtree(raw.folder / "imagesUn")
    splits = [{"train": ["lab_000"], "val": [], "unlabeled": ["lab_001"]}]
    (raw.folder / "splits_final.json").write_text(json.dumps(splits))
    assert plan("-c", "2d") == 0
    assert "has no images in imagesUn" in capsys.readouterr().out
    assert (preprocessed / "nnUNetPlans_2d").is_dir()
    assert json.loads((preprocessed / "splits_final.json").read_text(encoding="utf-8")) == splits


def test_preprocess_without_a_plan_says_what_to_run(made, capsys):
    assert run(preprocess, "-d", "504", "-np", "0") == 2
    assert "nnUNetv2_semisup_plan_and_preprocess -d 504" in capsys.readouterr().err
