"""Identity and completeness of source image files."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_semisup.headers.content import misnamed

_BLOCK_BYTES = 1 << 20


class DamagedFileError(Exception):
    """Report a file that cannot be read to its end; the message says why."""


@dataclass(frozen=True)
class SourceFile:
    """Describe a source file: ``size`` in bytes, ``mtime_ns`` in nanoseconds, hash of content."""

    name: str
    size: int
    mtime_ns: int
    sha256: str

    def unchanged(self, path: Path) -> bool:
        """Return whether name, size and modification time of ``path`` are the recorded ones."""
        try:
            stat = path.stat()
        except OSError:
            return False
        return (path.name, stat.st_size, stat.st_mtime_ns) == (self.name, self.size, self.mtime_ns)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary, the inverse of ``SourceFile(**values)``."""
        return asdict(self)


@dataclass(frozen=True)
class UnlabeledCase:
    """Hold one checked case of ``imagesUn``.

    ``images`` are the channel files in order; ``sources`` describes them and, for formats that
    keep the spacing in a side file, that file.
    """

    identifier: str
    images: tuple[Path, ...]
    sources: tuple[SourceFile, ...]

    def same_content(self, recorded: Sequence[SourceFile]) -> bool:
        """Return whether the recorded files had the same names and content."""
        return [(s.name, s.sha256) for s in self.sources] == [(s.name, s.sha256) for s in recorded]


def read_source(path: Path) -> tuple[SourceFile, int]:
    """Read ``path`` to its end and, if it is gzip, decompress it to its end.

    Image libraries stop at the last voxel or even fill up what is missing, so a truncated file
    may open without an error.

    Returns:
        The description of the file, and the number of its bytes after decompression.

    Raises:
        DamagedFileError: empty, unreadable, truncated or with a wrong checksum.
    """
    try:
        if fault := misnamed(path):
            raise DamagedFileError(fault)
        stat = path.stat()
        if stat.st_size == 0:
            raise DamagedFileError("is empty (0 bytes)")
        digest = hashlib.sha256()
        add_content(digest, path)
        length = _gzip_length(path) if path.suffix == ".gz" else stat.st_size
    except EOFError as error:
        raise DamagedFileError("is truncated (the compressed data end too early)") from error
    except (OSError, zlib.error) as error:
        raise DamagedFileError(f"cannot be read to its end ({error})") from error
    return SourceFile(path.name, stat.st_size, stat.st_mtime_ns, digest.hexdigest()), length


def add_content(digest: Any, path: Path) -> None:
    """Add all bytes of a file to a hash of :mod:`hashlib`, block by block."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)


def _gzip_length(path: Path) -> int:
    length = 0
    with gzip.open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            length += len(block)
    return length
