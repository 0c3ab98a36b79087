"""The arguments of every command, from its parser, in Markdown."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points

PREFIX = "nnUNetv2_semisup_"


def command_reference() -> str:
    """Return the page: a heading a command, below it its subcommands and arguments."""
    text = "# Arguments of the commands\n\nWhat `--help` prints. "
    text += "[What each command is for](commands.md).\n"
    scripts = entry_points(group="console_scripts")
    for script in sorted(script.name for script in scripts if script.name.startswith(PREFIX)):
        module = import_module(f"nnunet_semisup.cli.{script.removeprefix(PREFIX)}")
        text += "".join(described(module.build_parser()))
    return text


def described(parser: argparse.ArgumentParser, level: int = 2) -> Iterator[str]:
    """Yield what a parser, and each of its subcommands, takes."""
    yield f"\n{'#' * level} `{parser.prog}`\n\n{plain(parser.description)}\n"
    parser.formatter_class = argparse.HelpFormatter
    usage = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: ")).strip()
    yield f"\n``` {{ .text .usage }}\n{usage}\n```\n"
    formatter = argparse.HelpFormatter(parser.prog)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from described(one, level + 1)
        elif action.help not in (None, argparse.SUPPRESS) and action.dest != "help":
            names = formatter._format_action_invocation(action)
            yield f"\n`{names}`\n:   {plain(formatter._expand_help(action))}\n"


def plain(text: str | None) -> str:
    """Return a help text as one paragraph in which nothing is taken for Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join((text or "").split()))
