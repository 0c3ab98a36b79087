"""nnU-Net's variables with values that name other folders than they seem to.

nnU-Net 2.8.1 takes them as they are (``nnunetv2/paths.py``): its trainer makes ``~`` or a folder
with a quotation mark in the current one.
"""

import sys

import pytest

from nnunet_semisup._discovery.ext import nnunet_semisup_trainers as external
from nnunet_semisup.cli import (
    compare,
    convert,
    evaluate,
    info,
    plan_and_preprocess,
    preprocess,
    text_features,
    verify,
)
from nnunet_semisup.demo import run as demo
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.environment import check_environment
from nnunet_semisup.trainers import nnUNetTrainerPseudoLabel, nnUNetTrainerSupervised

VALUES = {
    "double quotes": ('"/data/raw"', "begins or ends with a quotation mark"),
    "one single quote": ("/data/raw'", "begins or ends with a quotation mark"),
    "typographic quotes": ("\u201c/data/raw\u201d", "begins or ends with a quotation mark"),
    "home": ("~/raw", "begins with ~"),
    "home of somebody": ("~ann/raw", "begins with ~"),
    "blank at the end": ("/data/raw ", "begins or ends with a blank"),
    "blank at the start": (" /data/raw", "begins or ends with a blank"),
    "carriage return": ("/data/raw\r", "begins or ends with a blank or a line break"),
    "only a blank": (" ", "begins or ends with a blank"),
    "variable": ("$HOME/raw", "holds a $ that no shell has replaced"),
}


@pytest.fixture(autouse=True)
def sound(monkeypatch, tmp_path):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_is_no_path_is_named(monkeypatch, variable, name):
    value, message = VALUES[name]
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError) as caught:
        check_environment()
    assert f"{variable}={value!r} {message}" in str(caught.value)
    assert "Correct them where they are set" in str(caught.value)


def test_all_variables_are_named_at_once(monkeypatch):
    monkeypatch.setenv("nnUNet_raw", '"/a"')
    monkeypatch.setenv("nnUNet_results", "~/b")
    with pytest.raises(UserError) as caught:
        check_environment()
    assert "nnUNet_raw=" in str(caught.value)
    assert "nnUNet_results=" in str(caught.value)
    assert "nnUNet_preprocessed=" not in str(caught.value)


def test_two_variables_that_name_one_folder(monkeypatch, tmp_path):
    """The same folder by another spelling, too: through a link, or with a slash at its end."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "raw")
    for value in (f"{tmp_path}/raw/", f"{tmp_path}/link", f"{tmp_path}/results/../raw"):
        monkeypatch.setenv("nnUNet_results", value)
        with pytest.raises(UserError, match=r"nnUNet_raw and nnUNet_results name one folder"):
            check_environment()


def test_a_folder_in_the_other(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "results" / "a" / "raw"))
    with pytest.raises(UserError) as caught:
        check_environment()
    inner, outer = tmp_path / "results" / "a" / "raw", tmp_path / "results"
    assert f"nnUNet_raw ({inner}) lies in nnUNet_results ({outer})" in str(caught.value)
    assert str(caught.value).count("  - ") == 1


def test_all_pointing_into_one_another(monkeypatch, tmp_path):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path))
    with pytest.raises(UserError) as caught:
        check_environment()
    assert str(caught.value).count("name one folder") == 3


def test_sound_values_pass(monkeypatch, tmp_path):
    """Beside each other, one name the beginning of another, with an apostrophe; or not set."""
    check_environment()
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "raw2"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "O'Neill's $5 results"))
    check_environment()
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.delenv(f"nnUNet_{name}")
    check_environment()
    monkeypatch.setenv("nnUNet_raw", "")
    check_environment()


COMMANDS = {
    "compare": (compare, ["a"]),
    "convert": (convert, ["la", "data", "-d", "508"]),
    "demo": (demo, []),
    "evaluate": (evaluate, ["a", "b"]),
    "info": (info, []),
    "plan_and_preprocess": (plan_and_preprocess, ["-d", "501"]),
    "preprocess": (preprocess, ["-d", "501"]),
    "text_features": (text_features, ["dataset.json", "-o", "x.npz"]),
    "verify": (verify, ["501"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_it(monkeypatch, capsys, name):
    command, arguments = COMMANDS[name]
    monkeypatch.setenv("nnUNet_raw", "~/raw")
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    assert end.value.code == 2
    assert "nnUNet_raw='~/raw' begins with ~" in capsys.readouterr().err


@pytest.mark.parametrize("trainer", [nnUNetTrainerPseudoLabel, nnUNetTrainerSupervised])
def test_a_trainer_refuses_it_before_it_makes_a_folder(monkeypatch, tmp_path, trainer):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_results", "~/results")
    with pytest.raises(UserError, match="nnUNet_results='~/results' begins with ~"):
        trainer({}, "3d_fullres", 0, {})
    assert not list(tmp_path.iterdir())
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(UserError, match="variable nnUNet_results is not set"):
        trainer({}, "3d_fullres", 0, {})


def test_training_refuses_it_while_it_looks_for_the_trainer(monkeypatch, capsys):
    """nnUNetv2_train looks for the data set next, and would say that there is none."""
    monkeypatch.setenv("nnUNet_preprocessed", "'/data/preprocessed'")
    monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_train", "501"])
    with pytest.raises(SystemExit) as end:
        hasattr(external, "nnUNetTrainerPseudoLabel")
    assert end.value.code == 2
    assert "begins or ends with a quotation mark" in capsys.readouterr().err
    assert not hasattr(external, "nnUNetTrainerOfSomebodyElse")
    monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_predict"])
    assert external.nnUNetTrainerPseudoLabel is nnUNetTrainerPseudoLabel
