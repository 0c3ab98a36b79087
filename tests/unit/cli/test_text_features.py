from __future__ import annotations

import json

import pytest
import torch

from nnunet_semisup.cli import text_features as cli
from nnunet_semisup.foundation.text_features import read_features
from nnunet_semisup.foundation.text_tower import VARIABLE, load_text_tower
from tests.helpers import nnunet_folders
from tests.text_models import make_clip_folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    pytest.importorskip("open_clip")
    return make_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def dataset(tmp_path, monkeypatch, clip_folder):
    monkeypatch.setenv(VARIABLE, str(clip_folder))
    path = tmp_path / "Dataset001_X" / "dataset.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"labels": {"background": 0, "left_atrium": 1}}))
    return path


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(a) for a in arguments])
    return caught.value.code


def test_writes_what_the_model_says(dataset, tmp_path, capsys):
    out = tmp_path / "features.npz"
    assert run(dataset, "-o", out, "--template", "scan of {}") == 0
    read = read_features(out)
    assert read.labels == ("background", "left_atrium")
    assert read.texts == ("scan of background", "scan of left atrium")
    assert read.model == "clip"
    with torch.no_grad():
        expected = load_text_tower("clip")(read.texts)
    torch.testing.assert_close(read.features, expected)
    assert str(out) in capsys.readouterr().out


def test_help_says_what_a_file_gives_up(capsys):
    assert run("--help") == 0
    assert "learns no prompts" in " ".join(capsys.readouterr().out.split())


def test_descriptions_beside_the_dataset_json_are_used(dataset, tmp_path, capsys):
    texts = {"left_atrium": ["a", "b"], "background": "RV"}
    (dataset.parent / "class_descriptions.json").write_text(json.dumps(texts))
    out = tmp_path / "features.npz"
    assert run(dataset, "-o", out, "--template", "{}") == 0
    assert read_features(out).texts == ("RV", "a | b")
    assert "background say little" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.txt"], "ending in .npz"),
        (["-o", "/not/there/x.npz"], "existing folder"),
        (["-o", "x.npz", "--template", "no place"], "must contain {}"),
    ],
)
def test_bad_arguments(dataset, capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(dataset, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("/not/there/dataset.json", "does not exist"),
        ("987", "no data set 987"),
        ("Dataset987_None", "no dataset.json for Dataset987_None"),
    ],
)
def test_unknown_data_set(given, message, capsys, tmp_path):
    assert run(given, "-o", tmp_path / "x.npz") == 2
    assert message in capsys.readouterr().err


def test_missing_weights(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nothing"))
    assert run(dataset, "-o", tmp_path / "x.npz") == 2
    assert VARIABLE in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("Liver", "no data set Liver"),
        ("BROKEN", "cannot be read as JSON"),
        ("EMPTY", "no 'labels'"),
    ],
)
def test_bad_data_set_ends_with_2_and_writes_nothing(
    tmp_path, monkeypatch, capsys, argument, message
):
    nnunet_folders(tmp_path, monkeypatch)
    (tmp_path / "BROKEN.json").write_text("{")
    (tmp_path / "EMPTY.json").write_text("{}")
    if argument != "Liver":
        argument = tmp_path / f"{argument}.json"
    out = tmp_path / "features.npz"
    assert run(argument, "-o", out) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
