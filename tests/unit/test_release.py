"""The recipes of containers: linted, alike, and their steps outside of a container."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.project import ROOT, pyproject

DOCKERFILE = ROOT / "containers" / "Dockerfile"
APPTAINER = ROOT / "containers" / "apptainer.def"
SECTIONS = ["help", "files", "post", "environment", "test", "runscript"]
COMMANDS = pyproject()["project"]["scripts"]


def instructions(name):
    """Return the values of a Dockerfile's instructions of a name, each in one line."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found = [re.split(r"\s+", line, maxsplit=1) for line in lines if line.strip()]
    return [value for word, value in found if word == name]


def docker_steps():
    return [
        re.sub(r"\s+", " ", step.strip()) for run in instructions("RUN") for step in run.split("&&")
    ]


def docker_files():
    """Return pairs of a file or folder and where it is copied to."""
    copied = []
    for value in instructions("COPY"):
        *sources, target = value.split()
        several = target.endswith("/")
        copied += [(one, target + one if several else target) for one in sources]
    return copied


def sections():
    """Return an Apptainer definition's header as pairs, and its sections as lines."""
    head, *parts = re.split(r"^%(\w+)\n", APPTAINER.read_text("utf-8"), flags=re.MULTILINE)
    header = dict(line.split(": ") for line in head.splitlines() if line)
    bodies = [[line.strip() for line in body.splitlines() if line.strip()] for body in parts[1::2]]
    return header, dict(zip(parts[::2], bodies, strict=True))


def test_linter_finds_nothing_in_the_dockerfile():
    program = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("section", ["post", "environment", "test", "runscript"])
def test_sections_of_the_definition_are_of_the_shell(section):
    script = "\n".join(sections()[1][section])
    done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True)
    assert (done.stderr, done.returncode) == ("", 0)


def test_both_recipes_do_the_same():
    header, parts = sections()
    assert header == {"Bootstrap": "docker", "From": instructions("FROM")[0]}
    assert list(parts) == SECTIONS
    files = [tuple(line.split()) for line in parts["files"]]
    assert [(one, to + one if to.endswith("/") else to) for one, to in files] == docker_files()
    check = "nnUNetv2_semisup_info --check"
    assert parts["test"] == [check]
    made = f"mkdir {instructions('WORKDIR')[0]}"
    assert [*parts["post"], check] == [*docker_steps()[:-1], made, check]
    variables = re.findall(r"(\w+)=(\S+)", " ".join(instructions("ENV")))
    exported = [tuple(line.removeprefix("export ").split("=")) for line in parts["environment"]]
    assert exported == [pair for pair in variables if not pair[0].startswith("NVIDIA_")]
    assert {value for name, value in exported if name.startswith("nnUNet_")} == {
        f"/data/{name}" for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }


def test_python_of_the_recipes_is_one_of_the_package():
    minor = re.fullmatch(r"python:(3\.\d+)-slim-\w+", instructions("FROM")[0])[1]
    assert f"Programming Language :: Python :: {minor}" in pyproject()["project"]["classifiers"]


def test_runscript_runs_what_is_given_or_lists_the_methods(tmp_path):
    (line,) = sections()[1]["runscript"]
    for name in ("nnUNetv2_semisup_info", "other"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    run = ("sh", "-c", line, "runscript")
    for given, expected in (((), "nnUNetv2_semisup_info\n"), (("other", "a b"), "other a b\n")):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run([*run, *given], env=environment, capture_output=True, text=True)
        assert done.stdout == expected
    assert instructions("CMD") == ['["nnUNetv2_semisup_info"]']


def test_steps_are_known():
    """Those of Debian are for the image; the others are run by the next test, but for a removal."""
    others = [step for step in docker_steps() if not re.match(r"apt-get |rm -rf /var/lib/", step)]
    assert [step.split()[0] for step in others] == ["pip", "rm", "nnUNetv2_semisup_info"]
    assert others[-1].split()[0] in COMMANDS


def test_what_is_copied_is_enough_for_the_wheel(tmp_path):
    """The step that installs, without what it would download: the wheel's pages are in it."""
    source = tmp_path / "source"
    for one, target in docker_files():
        there = tmp_path / target.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / one).is_dir() else shutil.copy
        copy(ROOT / one, there)
    (step,) = (step for step in docker_steps() if step.startswith("pip install "))
    words = [str(source) if word == "/source" else word for word in step.split()[2:]]
    offline = (
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        tmp_path / "installed",
    )
    pip = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    subprocess.run([*pip, *offline, *words], check=True)
    package = tmp_path / "installed" / "nnunet_semisup"
    assert sorted(path.name for path in (package / "pages").iterdir()) == sorted(
        path.name for path in Path(ROOT / "docs" / "methods").iterdir()
    )
    assert (tmp_path / "installed" / "nnunet_semisup_discovery.pth").is_file()
