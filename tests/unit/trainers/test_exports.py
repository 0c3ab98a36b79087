"""Names that ``nnunet_semisup.trainers`` has for people, type checkers and nnU-Net's search."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_semisup import trainers
from nnunet_semisup.registry import FAMILIES, METHODS

FOR_OWN_TRAINERS = {
    "Labeled",
    "SemiSupervisedTrainer",
    "TeacherTrainer",
    "Terms",
    "TextGuidance",
    "Unlabeled",
}
OPTIONAL = {"h5py", "huggingface_hub", "mamba_ssm", "open_clip", "timm", "transformers"}


def run(code):
    """Runs ``code`` in a new interpreter and gives what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_trainers_are_those_of_the_registry():
    assert set(trainers.__all__) - FOR_OWN_TRAINERS == {method.trainer for method in METHODS}
    for method in METHODS:
        found = getattr(trainers, method.trainer)
        assert found.__module__ == f"nnunet_semisup.trainers.{method.module}"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
def test_a_row_of_the_registry_says_what_its_class_is(method):
    """It cannot ask the class: the table is read without torch."""
    found = getattr(trainers, method.trainer)
    assert method.uses_unlabeled == issubclass(found, trainers.SemiSupervisedTrainer)
    assert method.has_teacher == issubclass(found, trainers.TeacherTrainer)
    own = method.predicts_as == method.trainer
    assert own or method.predicts_as == "nnUNetTrainer"
    assert own != found.predicts_with_plan_network()
    assert (method.family == "text") == issubclass(found, trainers.TextGuidance)
    assert method.family in FAMILIES
    assert set(method.dims) <= {2, 3}


def test_a_type_checker_sees_every_name():
    """Names that exist at run time only are unknown to it."""
    tree = ast.parse(Path(trainers.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == set(trainers.__all__)
    assert Path(trainers.__file__).parents[1].joinpath("py.typed").is_file()


def test_importing_the_trainers_imports_no_optional_library():
    """Prediction of every method passes through here."""
    code = "import sys, nnunet_semisup.trainers; print(*sys.modules, sep='\\n')"
    imported = {name.partition(".")[0] for name in run(code)}
    assert not imported & (OPTIONAL | {"vector_quantize_pytorch"})


def test_without_its_library_only_vqseg_fails():
    code = (
        "import sys\n"
        "sys.modules['vector_quantize_pytorch'] = None\n"
        "from torch import nn\n"
        "from nnunet_semisup import trainers\n"
        "from nnunet_semisup.errors import UserError\n"
        "from nnunet_semisup.networks.quantizer import VectorQuantizer\n"
        "print(len(trainers.__all__))\n"
        "try:\n    VectorQuantizer(4, 8, 4, nn.Conv2d)\n"
        "except UserError as error:\n    print(error)\n"
    )
    count, message = run(code)
    assert int(count) == len(trainers.__all__)
    assert "pip install vector-quantize-pytorch" in message
