"""Locks that a process inherits, where the file system has none."""

from __future__ import annotations

import errno
import fcntl

import pytest

from nnunet_semisup.errors import UserError
from nnunet_semisup.processes import inheritable_lock
from nnunet_semisup.training.interruption import Interruption


def refuse(number):
    def lock(*_):
        raise OSError(number, "no")

    return lock


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP])
def test_without_locks_work_goes_on(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with inheritable_lock(tmp_path, Interruption()) as descriptor:
        assert descriptor is not None


def test_a_lock_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    with (
        pytest.raises(UserError, match="lock cannot be locked"),
        inheritable_lock(tmp_path, Interruption()),
    ):
        pass
