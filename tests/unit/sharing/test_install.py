"""A stranger's zip is looked at before anything of it is written or unpickled."""

from __future__ import annotations

import os
import pickle
import stat
import zipfile

import pytest
import torch
from nnunetv2.postprocessing.remove_connected_components import (
    remove_all_but_largest_component_from_segmentation,
)

from nnunet_semisup.cli.install import build_parser, install
from nnunet_semisup.errors import UserError
from nnunet_semisup.sharing.members import size_fault
from tests.unit.sharing.conftest import DATASET

NAME = f"{DATASET}/nnUNetTrainer__nnUNetPlans__2d"


def run(file, *more):
    install(build_parser().parse_args([str(file), *map(str, more)]))


def below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def changed(file, **members):
    """Add members to a zip, or replace them."""
    target = file.with_name("changed.zip")
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(target, "w") as after:
        for member in before.infolist():
            if member.filename not in members:
                after.writestr(member, before.read(member))
        for name, content in members.items():
            after.writestr(name, content)
    return target


def test_installs_what_was_exported_and_says_how_to_predict(pack, terms, results, capsys):
    file = pack(terms=terms)
    capsys.readouterr()
    run(file)
    said = capsys.readouterr().out
    assert (results / NAME / "fold_0" / "checkpoint_final.pth").is_file()
    assert f"-d {DATASET} -tr nnUNetTrainer -p nnUNetPlans -c 2d -f 0" in said
    assert "nothing but nnU-Net" in said
    assert "'CC-BY-4.0'" in said
    assert below(results) == [DATASET, *(p for p in below(results) if p.startswith(DATASET + "/"))]


@pytest.mark.parametrize(
    "name",
    [
        "../outside.json",
        f"{DATASET}/../../outside.json",
        "/outside.json",
        "C:/outside.json",
        f"{NAME}/..\\outside.json",
        f"{NAME}//outside.json",
        "outside/x.json",
        f"{DATASET}/outside/x.json",
        f"{NAME}__more/x.json",
        f"{DATASET}/outside.json",
        DATASET,
    ],
)
def test_members_outside_of_a_model_are_refused(pack, results, name):
    """Python's ``extractall`` would put them somewhere else in the folder of results."""
    file = changed(pack(), **{name: "{}"})
    with pytest.raises(UserError, match="is not installed") as raised:
        run(file)
    assert repr(name) in str(raised.value)
    assert below(results) == []


def test_links_and_names_that_are_there_twice_are_told_together(pack, results):
    link = zipfile.ZipInfo(f"{NAME}/link.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = changed(pack(), **{f"{NAME}/PLANS.json": "{}"})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "/etc/hostname")
    with pytest.raises(UserError) as raised:
        run(file)
    assert "link.json' is a link" in str(raised.value)
    assert "plans.json' is there 2 times" in str(raised.value)
    assert below(results) == []


def test_sizes_that_no_model_has_are_refused(pack, results):
    with zipfile.ZipFile(pack(), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}/zeros.json", bytes(30_000_000))
    with pytest.raises(UserError, match="no model is packed like that"):
        run(archive.filename)
    assert below(results) == []
    assert "are free" in size_fault([zipfile.ZipInfo("x")], 1, -1)


def test_other_bytes_than_the_card_tells_are_refused(pack, results):
    file = changed(pack(), **{f"{NAME}/plans.json": "{}"})
    with pytest.raises(UserError, match=r"plans\.json: other bytes than the card tells"):
        run(file)
    assert below(results) == []


def test_a_file_that_the_card_does_not_have_is_refused(pack, results):
    file = changed(pack(), **{f"{NAME}/more.json": "{}"})
    with pytest.raises(UserError, match=r"only the card or only the zip has more\.json"):
        run(file)
    assert below(results) == []


class Harm:
    """Make a folder when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.fixture
def of_nnunet(pack):
    """A zip without a card, with members that are replaced, as nnU-Net's own export writes it."""

    def make(**members):
        file = changed(pack(), **members)
        with zipfile.ZipFile(file) as before:
            kept = {n: before.read(n) for n in before.namelist() if "card" not in n.lower()}
        with zipfile.ZipFile(file, "w") as after:
            for name, content in kept.items():
                after.writestr(name, content)
        return file

    return make


def test_code_in_checkpoints_and_pickles_is_named_and_not_run(of_nnunet, results, tmp_path):
    """nnU-Net 2.8.1 reads both in ways that run it: ``weights_only=False`` and ``load_pickle``."""
    torch.save({"network_weights": {}, "x": Harm(tmp_path / "made")}, tmp_path / "x.pth")
    file = of_nnunet(
        **{
            f"{NAME}/fold_0/checkpoint_best.pth": (tmp_path / "x.pth").read_bytes(),
            f"{NAME}/crossval_results_folds_0/postprocessing.pkl": pickle.dumps(
                Harm(tmp_path / "made")
            ),
        }
    )
    with pytest.raises(UserError) as raised:
        run(file)
    assert "checkpoint_best.pth: cannot be read as a checkpoint (it holds" in str(raised.value)
    assert "postprocessing.pkl: it holds posix.mkdir, which is code" in str(raised.value)
    assert not (tmp_path / "made").exists()
    assert below(results) == []


def test_a_zip_of_nnunet_with_its_postprocessing_is_installed(of_nnunet, results, capsys):
    kwargs = {"labels_or_regions": (1, 2), "background_label": 0}
    content = pickle.dumps(([remove_all_but_largest_component_from_segmentation], [kwargs]))
    place = "crossval_results_folds_0/postprocessing.pkl"
    run(of_nnunet(**{f"{NAME}/{place}": content, f"{DATASET}/inference_information.json": "{}"}))
    assert (results / NAME / place).read_bytes() == content
    assert (results / DATASET / "inference_information.json").is_file()
    assert "has no card" in capsys.readouterr().out


def test_a_model_that_is_there_is_kept(pack, results, capsys):
    file = pack()
    run(file)
    (results / NAME / "mine").write_text("mine")
    with pytest.raises(UserError, match="is there: --overwrite keeps it"):
        run(file)
    run(file, "--overwrite")
    assert not (results / NAME / "mine").exists()
    assert (results / f"{NAME}_previous" / "mine").read_text() == "mine"


def test_a_number_that_another_data_set_has_is_refused(pack, results, tmp_path, capsys):
    """With two of one number nnU-Net 2.8.1 refuses ``-d 901`` of both."""
    (results.parent / "raw" / "Dataset901_Other").mkdir()
    file = pack()
    with pytest.raises(UserError, match="the number is taken by Dataset901_Other"):
        run(file)
    assert below(results) == []
    damaged = changed(file, **{f"{NAME}/plans.json": "{}"})
    with pytest.raises(UserError, match="other bytes"):
        run(damaged, "--into", tmp_path / "models")
    assert not (tmp_path / "models").exists()
    run(file, "--into", tmp_path / "models")
    assert f"-m {tmp_path / 'models' / NAME} -f 0" in capsys.readouterr().out


@pytest.mark.parametrize("kept", [0, 100, -200])
def test_a_damaged_zip_is_called_that(pack, results, kept):
    file = pack()
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match="is no zip, or is damaged"):
        run(file)
    assert below(results) == []


def test_bytes_that_changed_on_the_way_are_found(of_nnunet, results):
    """Of a zip without a card by its own checksums, which are of every member."""
    file = of_nnunet()
    content = bytearray(file.read_bytes())
    place = content.index(b"PlainConvUNet")
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: Bad CRC-32"):
        run(file)
    assert below(results) == []
