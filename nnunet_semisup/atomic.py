"""Make files appear complete or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(
    target: Path, prefix: str | None = None, suffix: str | None = None
) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that replaces it when the block ends without error.

    The content is on the disk before the name is, so that a power cut leaves one or the other.

    Args:
        target: path of the file.
        prefix: of the temporary name; ``None``: ``.stem_``.
        suffix: of it, from which some writers take the format; ``None``: the target's.
    """
    handle, name = tempfile.mkstemp(
        prefix=f".{target.stem}_" if prefix is None else prefix,
        suffix=target.suffix if suffix is None else suffix,
        dir=target.parent,
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        publish(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def where_possible() -> Iterator[None]:
    """Pass over what a file system does not know, as some network mounts; other errors count."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
            raise


def publish(temporary: Path, target: Path) -> None:
    """Flush ``temporary`` to the disk, give it ordinary permissions and rename it to ``target``."""
    umask = os.umask(0)
    os.umask(umask)
    with where_possible():
        temporary.chmod(0o666 & ~umask)
    with temporary.open("r+b") as file, where_possible():  # Windows syncs only what is writable.
        os.fsync(file.fileno())
    os.replace(temporary, target)


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to the file ``source``, or a copy on a system without links.

    A file that is there is replaced. Links of ``source`` are followed.
    """
    temporary = target.with_name(f".link_{target.name}")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source.resolve(), temporary)
        except OSError:
            shutil.copy2(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
