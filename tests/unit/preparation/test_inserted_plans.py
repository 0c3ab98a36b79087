"""Plans with inserts, written beside those that they are a copy of."""

from __future__ import annotations

import json

import pytest

from nnunet_semisup.cli.plans import main
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.inserted_plans import Chosen, insert_into, read_choice
from nnunet_semisup.preparation.stamp import plans_hash
from tests.helpers import nnunet_folders
from tests.unit.architectures.test_planned_unet import configuration

NSDA = [Chosen("nsda", {})]


def plans() -> dict:
    """Plans with a cascade, as nnU-Net writes them."""
    low = {**configuration(3), "data_identifier": "P_3d_lowres", "next_stage": "3d_cascade_fullres"}
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    return {
        "plans_name": "nnUNetPlans",
        "dataset_name": "Dataset001_X",
        "configurations": {
            "2d": {**configuration(2), "data_identifier": "P_2d"},
            "3d_lowres": low,
            "3d_fullres": {**configuration(3), "data_identifier": "P_3d_fullres"},
            "3d_cascade_fullres": cascade,
        },
    }


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """The preprocessed folder of a data set with plans."""
    folders = nnunet_folders(tmp_path, monkeypatch)
    (folders.raw / "Dataset001_X").mkdir()
    folder = folders.preprocessed / "Dataset001_X"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans()))
    return folder


def command(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["-d", "1", *arguments])
    return caught.value.code


def test_a_copy_names_the_network_and_keeps_all_else(dataset, capsys):
    before = (dataset / "nnUNetPlans.json").read_bytes()
    assert command("--insert", "nsda", "-o", "nnUNetPlansNSDA") == 0
    written = json.loads((dataset / "nnUNetPlansNSDA.json").read_text())
    assert written["plans_name"] == "nnUNetPlansNSDA"
    assert list(written["configurations"]) == list(plans()["configurations"])
    for name, content in plans()["configurations"].items():
        found = written["configurations"][name]
        assert {k: v for k, v in found.items() if k != "architecture"} == {
            k: v for k, v in content.items() if k != "architecture"
        }
        if "architecture" in content:
            (insert,) = found["architecture"]["arch_kwargs"]["inserts"]
            assert insert["name"] == "nsda"
    assert (dataset / "nnUNetPlans.json").read_bytes() == before
    assert "-p nnUNetPlansNSDA -tr TRAINER" in capsys.readouterr().out


def test_a_cascade_without_its_other_stages_is_refused(dataset, capsys):
    assert command("--insert", "nsda", "-o", "New", "-c", "3d_cascade_fullres") == 2
    told = "3d_cascade_fullres: needs 3d_fullres and 3d_lowres, which is not in the new plans"
    assert told in capsys.readouterr().err
    assert not (dataset / "New.json").exists()
    stages = ("3d_fullres", "3d_cascade_fullres")
    assert command("--insert", "nsda", "-o", "New", "-c", *stages) == 0
    assert f"left out: {told}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["splits_final", "dataset", "dataset_fingerprint"])
def test_names_of_other_files_are_no_names_for_plans(dataset, capsys, name):
    assert command("--insert", "nsda", "-o", name) == 2
    assert "is another file of nnU-Net" in capsys.readouterr().err
    assert not (dataset / f"{name}.json").exists()


def test_a_configuration_may_inherit_its_patch(dataset):
    content = plans()
    network = content["configurations"]["3d_fullres"]["architecture"]
    own = {"inherits_from": "3d_fullres", "architecture": network}
    content["configurations"]["3d_other"] = own
    written = insert_into(content, "New", NSDA, ["3d_fullres", "3d_other"])
    names = ("3d_fullres", "3d_other")
    first, second = (written.plans["configurations"][name]["architecture"] for name in names)
    assert first == second


def test_what_is_preprocessed_for_the_plans_before_serves_the_copy():
    class Manager:
        def __init__(self, content):
            self.plans = {**content, "image_reader_writer": "X"}
            self.transpose_forward = [0, 1, 2]
            self.foreground_intensity_properties_per_channel = {}

        def get_configuration(self, name):
            self.configuration = self.plans["configurations"][name]
            return self

    copied = insert_into(plans(), "Q", NSDA, []).plans
    for name in ("2d", "3d_fullres"):
        assert plans_hash(Manager(copied), name) == plans_hash(Manager(plans()), name)
        identifier = copied["configurations"][name]["data_identifier"]
        assert identifier == plans()["configurations"][name]["data_identifier"]


def test_inserts_go_into_plans_that_have_others(monkeypatch):
    once = insert_into(plans(), "Q", NSDA, ["2d"]).plans
    with pytest.raises(UserError, match="2d: the network of these plans already has nsda"):
        insert_into(once, "R", NSDA, [])


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [(["3d_fullres"], ["3d_fullres"]), (["3d_fullres", "3d_cascade_fullres"], ["3d_fullres"])],
)
def test_configurations_that_others_need_go_with_them(chosen, kept):
    assert list(insert_into(plans(), "Q", NSDA, chosen).plans["configurations"]) == kept


def test_what_an_insert_cannot_serve_is_left_out_or_refused(monkeypatch):
    content = plans()
    name = "a.package.Transformer"
    content["configurations"]["2d"]["architecture"]["network_class_name"] = name
    written = insert_into(content, "Q", NSDA, [])
    assert "2d" not in written.plans["configurations"]
    (note,) = written.left_out
    assert note.startswith("2d: ")
    assert name in note
    with pytest.raises(UserError, match=r"No plans were written:\n.*2d: .*Transformer"):
        insert_into(content, "Q", NSDA, ["2d", "3d_fullres"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--insert", "nsd", "-o", "Q"), "There is no insert 'nsd'. Possible: "),
        (("--insert", "nsda", "-o", "nnUNetPlans"), "exists and is not overwritten"),
        (("--insert", "nsda", "-o", "../Q"), "is no name for plans"),
        (("--insert", "nsda", "-o", "a__b"), "is no name for plans"),
        (("--insert", "nsda", "-o", "Q", "-p", "Other"), "Other.json does not exist"),
        (("--insert", "nsda", "-o", "Q", "-c", "4d"), "no configuration 4d. Possible: 2d, "),
        (("--insert", "nsda", "nsda", "-o", "Q"), "already has nsda"),
        (("--insert", "nsda:size=3", "-o", "Q"), "nsda has no option size. Possible: none"),
        (("--insert", "nsda:size", "-o", "Q"), "write NAME or NAME:OPTION=VALUE"),
    ],
)
def test_faults_are_named_and_nothing_is_written(dataset, capsys, arguments, message):
    before = sorted(path.name for path in dataset.iterdir())
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in dataset.iterdir()) == before


def test_options_are_read_from_the_name():
    assert read_choice("nsda:a=1,b=x") == Chosen("nsda", {"a": "1", "b": "x"})
