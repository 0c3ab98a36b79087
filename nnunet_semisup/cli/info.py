"""``nnUNetv2_semisup_info``: the methods, their pages, whether nnU-Net finds them."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.registry import FAMILIES, METHODS, Method, find_method

HEADER = ("family", "trainer", "method", "paper", "dims", "cost", "needs", "predicts as")
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12)
FOOTNOTE = (
    "cost: operations of a step, the stock trainer's being 1. predicts as: the trainer that "
    "nnUNetv2_predict looks for; with nnUNetTrainer, nnU-Net without this package predicts too."
)
"""Explanation of the columns below the table."""


def build_parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_info",
        description="List the trainers of nnunet-semisup, or print the page of one of them.",
    )
    parser.add_argument(
        "trainer",
        nargs="?",
        metavar="TRAINER",
        help="print this trainer's page and its hyper-parameters, as nnUNet_semisup_set takes them",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--check",
        action="store_true",
        help="test whether nnUNetv2_train finds the trainers; exit code 1 if not",
    )
    return parser


def methods_table(markdown: bool = False) -> str:
    """Return the registry as a table, family by family."""
    families = list(FAMILIES)
    rows = [
        (
            method.family,
            f"[{method.trainer}](docs/methods/{method.page or method.module}.md)"
            if markdown
            else method.trainer,
            method.title,
            f"[{method.paper}]({method.url})" if markdown else method.paper,
            ", ".join(f"{d}D" for d in method.dims),
            method.cost,
            method.needs,
            method.predicts_as,
        )
        for method in sorted(METHODS, key=lambda method: families.index(method.family))
    ]
    return format_table(HEADER, rows, markdown)


def _methods(arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps([described(method) for method in METHODS], indent=2))
        return
    print(methods_table(arguments.markdown))
    if not arguments.markdown:
        meaning = "; ".join(f"{key}: {text[0].lower()}{text[1:]}" for key, text in FAMILIES.items())
        print(f"\n{meaning}.\n{FOOTNOTE}\nThe page of one: nnUNetv2_semisup_info TRAINER")


def described(method: Method) -> dict[str, object]:
    """Return a row of the registry as JSON takes it."""
    return {**asdict(method), "year": method.year}


def find_trainer(name: str) -> Method:
    """Return the row of the registry.

    Raises:
        UserError: there is no such trainer; lists those there are.
    """
    try:
        return find_method(name)
    except KeyError as error:
        listed = "\n".join(f"  {method.trainer}" for method in METHODS)
        raise UserError(f"There is no trainer {name}. There are:\n{listed}") from error


def _hyperparameters(arguments: argparse.Namespace) -> None:
    method = find_trainer(arguments.trainer)
    from nnunet_semisup.cli._hyperparameters import hyperparameters

    found = hyperparameters(method)
    if arguments.json:
        content = {**described(method), "hyperparameters": [asdict(h) for h in found]}
        print(json.dumps(content, indent=2))
        return
    mark = "``" if arguments.markdown else ""
    rows = [
        (h.name, h.kind, h.default, h.description.replace("``", mark), h.declared_by) for h in found
    ]
    table = format_table(
        ("name", "type", "default", "meaning", "declared by"), rows, arguments.markdown
    )
    from nnunet_semisup.cli._pages import facts, prose

    print(f"{method.trainer}: {method.title}\n{method.paper}, {method.url}\n")
    print(f"{prose(method)}\n\n{facts([method], arguments.markdown)}\n\n{table}")
    from nnunet_semisup.training.settings import forced_patches

    fraction = float(next(h.default for h in found if h.name == "oversample_foreground_percent"))
    forced = ", ".join(f"{forced_patches(size, fraction)} of {size}" for size in BATCH_SIZES)
    print(
        f"\noversample_foreground_percent={fraction:g} centres {forced} labeled patches on "
        "foreground, by the plan's batch size; the log of a training says it for its own."
    )
    example = f"num_epochs=250,{found[0].name}={found[0].default}"
    print(f'\nHow to set them: nnUNet_semisup_set="{example}" nnUNetv2_train ...')


def _check(names: Sequence[str]) -> int:
    failures = 0
    for name in names:
        problem = lookup_problem(name)
        failures += problem is not None
        print(f"{name}: {'found by nnU-Net' if problem is None else problem}")
    return 1 if failures else 0


def lookup_problem(name: str) -> str | None:
    """Return why nnU-Net's own search does not give this package's trainer, else ``None``."""
    from nnunet_semisup.cli._lookup import explain, resolve

    with _quiet():
        try:
            found = resolve(name)
        # Whatever module nnU-Net imports on its way may fail in any way.
        except Exception as error:
            return explain(error)
    if not found.__module__.startswith("nnunet_semisup."):
        return f"nnU-Net finds another class of this name, in {found.__module__}: rename that one"
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the search, which prints every folder and warns of modules that it passes by."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _run(arguments: argparse.Namespace) -> int:
    if arguments.check:
        names = [method.trainer for method in METHODS]
        if arguments.trainer is not None:
            names = [find_trainer(arguments.trainer).trainer]
        return _check(names)
    if arguments.trainer is None:
        _methods(arguments)
    else:
        _hyperparameters(arguments)
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; ``argv`` defaults to the command line."""
    arguments = build_parser().parse_args(argv)
    run_command(lambda: _run(arguments))


if __name__ == "__main__":
    main()
