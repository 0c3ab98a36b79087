"""Doing what a message says: the advice about the files that it names, followed to the letter.

What needs thought, such as which name or option is meant, is in ``advice_by_hand``.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Options = tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """Somebody with a message.

    Args:
        tree: what was broken.
        folder: holds the tree and nnU-Net's folders.
        intact: a copy of ``folder`` from before: the download, or the program that made the file.
        line: the message, with its paths.
    """

    tree: Any
    folder: Path
    intact: Path
    line: str

    def named(self) -> list[Path]:
        """The files that the message names by path, else by name, else by case; there or not."""
        known = {self.folder / p.relative_to(self.intact) for p in _files(self.intact)}
        files = sorted(known | set(_files(self.folder)))
        case = re.search(r"([\w.-]+): ", self.line)
        words = set(re.findall(r"[\w.-]+", self.line))
        folders = {parent for path in files for parent in path.parents}
        there = [p for p in folders if _is_below(p, self.folder) and str(p) in self.line]
        deepest = {p for p in there if not any(p in other.parents for other in there)}
        places = [p for p in files if p.parent.name in words] or files
        return (
            [path for path in files if str(path) in self.line]
            or [path for path in files if deepest & set(path.parents)]
            or [path for path in places if path.name in words]
            or [path for path in files if case and case[1] in str(path.relative_to(self.folder))]
        )

    def take_the_original(self) -> Options:
        """Restore what the message names."""
        named = self.named()
        assert named, f"names no file: {self.line}"
        for path in named:
            source = self.intact / path.relative_to(self.folder)
            path.unlink(missing_ok=True)
            if source.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, path)
        return ()

    def extract_again(self) -> Options:
        """Restore everything, without what was not in the archive."""
        for path in _files(self.folder):
            path.unlink()
        return self.add_what_is_missing()

    def add_what_is_missing(self) -> Options:
        """Restore what is not there; what is stays as it is."""
        for source in _files(self.intact):
            path = self.folder / source.relative_to(self.intact)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, path)
        return ()

    def remove_one(self) -> Options:
        """Remove the last that the message names: a file, or a folder of a series."""
        named = self.named()
        assert named, f"names no file: {self.line}"
        if named[-1].suffix == ".dcm":
            shutil.rmtree(named[-1].parent)
        else:
            named[-1].unlink()
        return ()

    def edit(self, name: str, change: Callable[[dict[str, Any]], object]) -> Options:
        """Correct a json file below the folder."""
        (path,) = self.folder.rglob(name)
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content))
        return ()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]


def _is_below(path: Path, folder: Path) -> bool:
    return folder in path.parents and path.parent != folder


def _option(reader: Reader, pattern: str) -> Options:
    match = re.search(pattern, reader.line)
    assert match is not None
    return tuple(match[1].split())


RULES: Sequence[tuple[str, Callable[[Reader], Options]]] = (
    (
        r"--(allow-[\w-]+|drop-duplicates) (accepts|leaves|converts|takes)",
        lambda r: _option(r, r"(--(?:allow-[\w-]+|drop-duplicates)) (?:accepts|lea|con|takes)"),
    ),
    (r"which (--.+) makes equal", lambda r: _option(r, r"which (--.+) makes equal")),
    (r"With (--trust-affine)", lambda r: _option(r, r"With (--trust-affine)")),
    (r"give (--overlap last)", lambda r: _option(r, r"give (--overlap last)")),
    (r"xtract the (case|patient|archive) again|has no \w+ file; extract", Reader.extract_again),
    (r"move the label away|[Cc]onvert it, or move it away", Reader.remove_one),
    (
        r"[Aa]dd (it|the image|the others|them)\b|is missing|[Pp]ut them there",
        Reader.add_what_is_missing,
    ),
    (
        r"[Ee]xtract (it|the series) again|[Tt]ake the (original|file that belongs)|[Cc]orrect|"
        r"[Ss]ave (it|one|each|all) |Convert both|[Gg]ive files with the same|every voxel has the|"
        r"[Ww]rite (it|the intensities) |[Rr]esample it|gives no voxel size",
        Reader.take_the_original,
    ),
    (
        r"[Rr]emove one|[Mm]ove (one|it|the others|that) |[Kk]eep the one|"
        r"unexpected channel|convert them separately|[Ll]eave it out of",
        Reader.remove_one,
    ),
)
"""The first whose words are in a message says what is done."""


def follow_the_words(reader: Reader) -> Options:
    """Do what the message says about the files and options that it names.

    Returns:
        The options that it asks for, to be added to the command.
    """
    for pattern, action in RULES:
        if re.search(pattern, reader.line):
            return action(reader)
    raise AssertionError(f"the message says nothing that could be done: {reader.line}")
