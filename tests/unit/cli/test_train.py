"""``nnUNetv2_semisup_train``: nnU-Net's arguments, its command alone, what several refuse."""

from __future__ import annotations

from argparse import ArgumentParser

import pytest
from nnunetv2.run import run_training

from nnunet_semisup.cli import train
from nnunet_semisup.cli.train import build_parser, main

GIVEN = ["501", "3d_fullres", "0", "-tr", "nnUNetTrainerCPS"]


class AskedError(BaseException):
    """Holds the parser whose arguments were asked for."""


def options(parser):
    """Return what each option is called, its default and whether it takes a value."""
    return {
        action.dest: (action.option_strings, action.default, action.nargs, action.type or str)
        for action in parser._actions
        if action.dest != "help"
    }


def test_arguments_are_those_of_nnunet(monkeypatch):
    def ask(parser, *_):
        raise AskedError(parser)

    monkeypatch.setattr(ArgumentParser, "parse_args", ask)
    with pytest.raises(AskedError) as asked:
        run_training.run_training_entry()
    assert options(build_parser()) == options(asked.value.args[0])


@pytest.mark.parametrize("processes", [None, "", "1"])
def test_alone_it_is_nnunets_command(monkeypatch, processes):
    called = []
    monkeypatch.setattr(run_training, "run_training", lambda *a, **k: called.append((a, k)))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setattr("sys.argv", ["x"])  # Set again by the command.
    threads = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    with pytest.raises(SystemExit) as end:
        main([*GIVEN, "-device", "cpu", "--c"])
    assert end.value.code == 0
    ((arguments, named),) = called
    assert arguments[:4] == ("501", "3d_fullres", "0", "nnUNetTrainerCPS")
    assert arguments[8] is True
    assert str(named["device"]) == "cpu"
    assert len(threads) == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["-num_gpus", "2"], "torchrun says how many processes"),
        (["--c", "--val"], "give one of them"),
        (["--c", "-pretrained_weights", "x.pth"], "leave them out with --c"),
        (["--val_best", "--disable_checkpointing"], "--val_best needs the checkpoints"),
        (["-device", "mps"], "several processes train on cuda or cpu"),
    ],
)
def test_several_refuse_before_they_meet(monkeypatch, capsys, more, told):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert code_of([*GIVEN, *more]) == 2
    assert told in capsys.readouterr().err


def test_a_fold_that_is_none_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert code_of(["501", "2d", "first"]) == 2
    assert "FOLD first" in capsys.readouterr().err


def test_a_variable_that_torchrun_sets_is_missing(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert code_of([*GIVEN, "-device", "cpu"]) == 2
    assert "RANK=1, LOCAL_RANK=, WORLD_SIZE=2" in capsys.readouterr().err


def code_of(arguments):
    """Return the exit code of the command."""
    with pytest.raises(SystemExit) as end:
        train.main(arguments)
    return end.value.code
