"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_semisup.errors import UserError

WAIT = 60.0
"""Seconds that a part waits for others to start, each of which holds the folder's lock for that."""


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder``'s lock, a file ``<folder>.lock`` beside it, which is removed at the end.

    The lock of a killed process is free. A file system without locks gives none.

    Raises:
        UserError: another process holds the lock, or it cannot be written.
    """
    with _held(folder.with_name(f"{folder.name}.lock"), folder):
        yield


@contextmanager
def lock_of_part(folder: Path, part: int, parts: int) -> Iterator[None]:
    """Hold the lock of one of several parts of a work; of one part, as :func:`exclusive_lock`.

    Parts of one division run beside each other. Another division, or the whole, waits for its turn.

    Args:
        folder: where the parts are written.
        part: its number, from 0.
        parts: how many there are.

    Raises:
        UserError: what cannot run beside it does, the same part included.
    """
    ending = f"_of_{parts}.lock"
    with ExitStack() as own, ExitStack() as whole:
        path = folder.with_name(f"{folder.name}.lock")
        whole.enter_context(_held(path, folder, 0 if parts == 1 else WAIT, keep=parts > 1))
        for other in folder.parent.glob(f"{escape(folder.name)}.part_*_of_*.lock"):
            if parts == 1 or not other.name.endswith(ending):
                with _held(other, folder):
                    pass
        if parts > 1:
            own.enter_context(_held(folder.with_name(f"{folder.name}.part_{part}{ending}"), folder))
            whole.close()
        yield


@contextmanager
def _held(path: Path, folder: Path, wait: float = 0, keep: bool = False) -> Iterator[None]:
    """Hold a lock of a folder.

    Args:
        path: of the lock.
        folder: which it is of.
        wait: seconds in which another process may release it.
        keep: leave the file, for processes that wait for it.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    lock = FileLock(path, timeout=wait)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"Another command is writing to {folder} (it holds {path}). Wait until it has ended, "
            "then run this one again."
        ) from None
    except NotImplementedError:
        yield
        return
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); it locks {folder.name}. Name a folder, "
            "or mount it, so that it and the one that it is in can be written to."
        ) from error
    try:
        yield
    finally:
        # Windows removes no open file; there, releasing the lock does.
        with suppress(PermissionError):
            if not keep:
                path.unlink(missing_ok=True)
        lock.release()
