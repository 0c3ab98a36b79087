"""What the README says exists: commands, their arguments, targets, files, the table of methods."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from nnunet_semisup.cli.info import methods_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "CONTRIBUTING.md")}
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)
PREFIX = "nnUNetv2_semisup_"


def command_lines(text):
    """The lines of the shell blocks, without variables set before a command."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and "=" in words[0]:
            words = words[1:]
        if words:
            yield words


def test_table_of_methods_is_that_of_the_registry():
    table = README.split("<!-- methods -->\n")[1].split("\n<!-- /methods -->")[0]
    assert table == methods_table(markdown=True), "paste nnUNetv2_semisup_info --markdown"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_named_is_installed(name):
    installed = {script.name for script in entry_points(group="console_scripts")}
    named = set(re.findall(r"\bnnUNetv2_\w+", DOCUMENTS[name]))
    assert named <= installed


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_target_named_is_in_the_makefile(name):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    assert set(re.findall(r"`?make ([a-z-]+)", DOCUMENTS[name])) - {"targets"} <= set(targets)


OWN_COMMANDS = [words for words in command_lines(README) if words[0].startswith(PREFIX)]


@pytest.mark.parametrize("words", OWN_COMMANDS, ids=" ".join)
def test_own_commands_take_the_arguments_shown(words):
    module = import_module(f"nnunet_semisup.cli.{words[0].removeprefix(PREFIX)}")
    module.build_parser().parse_args(words[1:])


def test_own_commands_are_shown():
    assert {words[0] for words in OWN_COMMANDS} >= {
        f"{PREFIX}{name}" for name in ("plan_and_preprocess", "evaluate", "info")
    }


def anchors(path):
    """What the headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_and_pictures_exist(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            linked = page.parent / file if file else page
            assert linked.is_file(), target
            assert not anchor or anchor in anchors(linked), target
