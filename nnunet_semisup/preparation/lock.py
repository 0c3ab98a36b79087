"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_semisup.errors import UserError


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder``'s lock, a file ``<folder>.lock`` beside it, which is removed at the end.

    The lock of a killed process is free. A file system without locks gives none.

    Raises:
        UserError: another process holds the lock, or it cannot be written.
    """
    path = folder.with_name(f"{folder.name}.lock")
    lock = FileLock(path, timeout=0)
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
            path.unlink(missing_ok=True)
        lock.release()
