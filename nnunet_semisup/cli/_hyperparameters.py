"""Hyper-parameters of a trainer as its source declares and documents them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from nnunet_semisup.registry import Method

STOCK_DESCRIPTION = "nnU-Net's own"


@dataclass(frozen=True)
class Hyperparameter:
    """Describe one settable attribute; ``default`` as it is written in ``nnUNet_semisup_set``."""

    name: str
    kind: str
    default: str
    description: str
    declared_by: str


def hyperparameters(method: Method) -> list[Hyperparameter]:
    """Return the method's own hyper-parameters first, then those of its bases, then nnU-Net's.

    ``[0]`` in a docstring is the reference of its module, the method's paper.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_semisup.training.kinds import describe
    from nnunet_semisup.training.settings import hyperparameters_of

    trainer = getattr(import_module(f"nnunet_semisup.trainers.{method.module}"), method.trainer)
    kinds = hyperparameters_of(trainer)
    found: dict[str, Hyperparameter] = {}
    for base in trainer.__mro__:
        if not base.__module__.startswith("nnunet_semisup."):
            continue
        texts = attribute_docstrings(base)
        for name in inspect.get_annotations(base):
            if name in kinds and name not in found and hasattr(base, name):
                found[name] = Hyperparameter(
                    name,
                    describe(kinds[name]),
                    str(getattr(trainer, name)),
                    texts.get(name, "-").replace("[0]", "the paper"),
                    base.__name__,
                )
    stock = constructor_constants(nnUNetTrainer.__init__)
    for name, kind in kinds.items():
        if name not in found:
            found[name] = Hyperparameter(
                name, describe(kind), stock.get(name, "-"), STOCK_DESCRIPTION, "nnUNetTrainer"
            )
    return list(found.values())


def constructor_constants(constructor: Callable[..., None]) -> dict[str, str]:
    """Return what a constructor assigns to attributes as plain constants."""
    constants = {}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(constructor)))):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Attribute)
            and isinstance(node.value, ast.Constant)
        ):
            constants[node.targets[0].attr] = str(node.value.value)
    return constants


def attribute_docstrings(cls: type) -> dict[str, str]:
    """Return the string literals below annotated attributes of a class body, each on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            texts[statement.target.id] = " ".join(following.value.value.split())
    return texts
