"""What README and docs say exists: commands, their arguments, targets, files, the methods."""

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
DOCUMENTS = {
    name: (ROOT / name).read_text("utf-8")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "docs/install.md",
        "docs/commands.md",
        "docs/training.md",
        "docs/evaluation.md",
        "docs/sharing.md",
    )
}
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)
PREFIX = "nnUNetv2_semisup_"


def command_lines(text):
    """Yield the lines of the shell blocks, without variables set before a command."""
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
    named = re.findall(r"(?:^|`)make ([a-z-]+)", DOCUMENTS[name], flags=re.MULTILINE)
    assert set(named) <= set(targets)


OWN_COMMANDS = {
    name: [words for words in command_lines(text) if words[0].startswith(PREFIX)]
    for name, text in DOCUMENTS.items()
}
SHOWN = {" ".join(words): words for page in OWN_COMMANDS.values() for words in page}


@pytest.mark.parametrize("words", SHOWN.values(), ids=SHOWN)
def test_own_commands_take_the_arguments_shown(words):
    module = import_module(f"nnunet_semisup.cli.{words[0].removeprefix(PREFIX)}")
    module.build_parser().parse_args(words[1:])


def test_own_commands_are_shown():
    assert {words[0] for words in OWN_COMMANDS["README.md"]} == {
        f"{PREFIX}{name}"
        for name in ("info", "convert", "plan_and_preprocess", "evaluate", "compare")
    }


def test_every_command_has_a_line_in_the_list_of_commands():
    installed = {script.name for script in entry_points(group="console_scripts")}
    listed = re.findall(r"^\| `(\w+)", DOCUMENTS["docs/commands.md"], flags=re.MULTILINE)
    assert {name for name in listed if name.startswith(PREFIX)} == {
        name for name in installed if name.startswith(PREFIX)
    }


def test_readme_is_short_and_readable():
    lines = README.splitlines()
    assert len([line for line in lines if not line.startswith("|")]) <= 110
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def anchors(path):
    """Return what the headings of a page can be linked by."""
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


@pytest.mark.parametrize("name", sorted({*PAGES} - {"docs/datasets/faults.md"}))
def test_modules_and_files_named_exist(name):
    """Check paths from the root, from the package or from one of its folders, with their tests."""
    package = ROOT / "nnunet_semisup"
    known = {path.name for path in (*ROOT.iterdir(), *package.iterdir()) if path.is_dir()}
    for path in re.findall(r"`(\w+/[\w/.-]+\.(?:py|json|npz))", (ROOT / name).read_text("utf-8")):
        if path.split("/")[0] in known:
            assert (ROOT / path).is_file() or (package / path).is_file(), path
