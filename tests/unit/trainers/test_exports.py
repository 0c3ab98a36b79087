"""What ``nnunet_semisup.trainers`` gives, to people, to type checkers and to nnU-Net's search."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from nnunet_semisup import trainers
from nnunet_semisup.registry import METHODS

FOR_OWN_TRAINERS = {"Labeled", "SemiSupervisedTrainer", "Terms", "TextGuidance", "Unlabeled"}
OPTIONAL = {"h5py", "huggingface_hub", "open_clip", "timm", "transformers"}


def run(code):
    """Runs ``code`` in a new interpreter and gives what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_trainers_are_those_of_the_registry():
    assert set(trainers.__all__) - FOR_OWN_TRAINERS == {method.trainer for method in METHODS}
    for method in METHODS:
        found = getattr(trainers, method.trainer)
        assert found.__module__ == f"nnunet_semisup.trainers.{method.module}"


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
