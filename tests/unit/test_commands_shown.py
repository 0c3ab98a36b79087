"""Commands in the blocks of README and docs: each exists, and takes what it is given."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from argparse import ArgumentParser
from importlib.metadata import entry_points

import pytest
from torch.distributed.run import get_args_parser

from nnunet_semisup.cli._hyperparameters import hyperparameters
from nnunet_semisup.registry import METHODS, find_method
from tests.project import ROOT, pyproject

PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "findings/README.md"))
SCRIPTS = {script.name: script for script in entry_points(group="console_scripts")}
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
CONTAINERS = {"docker": {"build", "run"}, "apptainer": {"build", "test", "run"}}
SHELL = {"cd", "export", "for", "done", "sbatch"}
COMMAND = re.compile(r"^(?:\w+=\S+ )*(?:nnUNetv2_\w+|python|pip|make) ", flags=re.MULTILINE)


def blocks(path):
    """Return language and text of a page's blocks of code."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^```([^\n]*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text):
    """Yield the commands of a block as words, those of a loop with a number for its variable."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(
            re.sub(r"\$(?:seed|fold|SLURM_\w+)\b", "0", line), posix=True, punctuation_chars=";"
        )
        words.whitespace_split = True
        command = []
        for word in (*words, ";"):
            if word != ";":
                command.append(word)
                continue
            if command[:1] in (["do"], ["srun"]):
                del command[0]
            if command[:1] == ["torchrun"]:
                command = started_by_torchrun(command)
            if command:
                yield command
            command = []


def started_by_torchrun(words):
    """Return the command that torchrun starts, once torchrun takes its own arguments."""
    given = get_args_parser().parse_args(words[1:])
    assert given.module
    return ["python", "-m", given.training_script, *given.training_script_args]


def split_settings(words):
    """Return the variables set before a command, and the command."""
    settings = {}
    while words and "=" in words[0]:
        name, _, settings[name] = words[0].partition("=")
        words = words[1:]
    return settings, words


SHOWN = {
    " ".join(words): words
    for page in PAGES
    for language, text in blocks(page)
    if language == "bash"
    for words in commands(text)
}
SPLIT = {shown: split_settings(words) for shown, words in SHOWN.items()}
STARTED = {" ".join(words): words for _, words in SPLIT.values() if words}
SET = {
    shown: (settings["nnUNet_semisup_set"], words)
    for shown, (settings, words) in SPLIT.items()
    if "nnUNet_semisup_set" in settings
}


class TakenError(BaseException):
    """The arguments were taken; nothing else shall run."""


def parse_only(self, args=None, namespace=None, of=ArgumentParser.parse_args):
    of(self, args, namespace)
    raise TakenError


def start(words):
    """Start a program of Python as the shell would, in this process."""
    if words[0] in SCRIPTS:
        SCRIPTS[words[0]].load()()
    elif words[1] == "-m":
        runpy.run_module(words[2], run_name="__main__")
    else:
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")


@pytest.mark.parametrize("words", STARTED.values(), ids=STARTED)
def test_commands_take_the_arguments_shown(words, monkeypatch):
    check(words, monkeypatch)


def check(words, monkeypatch):
    """Start a command as far as its arguments."""
    if words[0] == "make":
        check_make(words[1:])
    elif words[0] == "pip":
        check_pip(words[1:])
    elif words[0] in CONTAINERS:
        check_container(words, monkeypatch)
    elif words[0] not in SHELL:
        assert words[0] in SCRIPTS or words[0] == "python"
        if words[0] == "python":
            monkeypatch.syspath_prepend(ROOT / "benchmarks")
        given = words[1 if words[0] in SCRIPTS else 3 if words[1] == "-m" else 2 :]
        monkeypatch.setattr(ArgumentParser, "parse_args", parse_only)
        monkeypatch.setattr(sys, "argv", [words[0], *given])
        with pytest.raises(TakenError):
            start(words)


def check_make(words):
    """Check targets and variables."""
    targets = re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE)
    variables = re.findall(r"^(\w+) \?=", MAKEFILE, flags=re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)
    assert {word.partition("=")[0] for word in words if "=" in word} <= set(variables)


def check_container(words, monkeypatch):
    """Check recipes and the name of what is built, and the command that runs inside."""
    assert words[1] in CONTAINERS[words[0]]
    images = [word for word in words if re.fullmatch(r"nnunet-semisup(\.sif)?", word)]
    assert images == ["nnunet-semisup" + (".sif" if words[0] == "apptainer" else "")]
    recipes = [word for word in words if word.startswith("containers/")]
    assert len(recipes) == (words[1] == "build")
    assert all((ROOT / recipe).is_file() for recipe in recipes)
    if words[1] == "run":
        check(words[words.index(images[0]) + 1 :], monkeypatch)


def check_pip(words):
    """Check that what is installed is this package, an extra of it, or one that an extra has."""
    extras = pyproject()["project"]["optional-dependencies"]
    assert words[0] == "install"
    for what in words[1:]:
        extra = re.fullmatch(r"(?:\.|nnunet-semisup)\[(\w+)\]", what)
        listed = any(what in needed for needs in extras.values() for needed in needs)
        assert what == "." or (extra and extra[1] in extras) or listed


@pytest.mark.parametrize(("given", "words"), SET.values(), ids=SET)
def test_settings_shown_are_of_the_trainer(given, words):
    method = find_method(words[words.index("-tr") + 1])
    known = {one.name for one in hyperparameters(method)}
    assert {setting.partition("=")[0] for setting in re.split(r",(?=\w+=)", given)} <= known


def test_trainers_shown_exist():
    """``nnUNetTrainerMine`` is that of the page on one's own method."""
    words = {word for words in STARTED.values() for word in words}
    trainers = {word for word in words if re.fullmatch(r"nnUNetTrainer\w*", word)}
    known = {method.trainer for method in METHODS}
    assert trainers - known == {"nnUNetTrainer", "nnUNetTrainerMine"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_with_commands_say_so(page):
    """Else the tests above would not see them."""
    others = [text for language, text in blocks(page) if language != "bash"]
    assert [found[0] for text in others for found in COMMAND.finditer(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_targets_named_exist(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"\bnnUNetv2_\w+", text)) <= set(SCRIPTS)
    targets = re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= set(targets)


def test_own_commands_are_in_the_readme():
    started = {words[0] for _, block in blocks(ROOT / "README.md") for words in commands(block)}
    assert {word for word in started if word.startswith("nnUNetv2_semisup_")} == {
        f"nnUNetv2_semisup_{name}"
        for name in ("info", "convert", "plan_and_preprocess", "evaluate", "compare")
    }
