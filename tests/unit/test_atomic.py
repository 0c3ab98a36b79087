import errno
import os
import stat
from contextlib import nullcontext

import pytest

from nnunet_semisup.atomic import atomic_path


def test_target_appears_complete_with_the_usual_rights(tmp_path):
    path, usual = tmp_path / "file.txt", tmp_path / "usual.txt"
    usual.touch()
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "new"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [path, usual]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "passed_over"), [(errno.EINVAL, True), (errno.EPERM, True), (errno.EIO, False)]
)
def test_what_a_file_system_does_not_know_is_passed_over(
    tmp_path, monkeypatch, number, passed_over
):
    """A write that failed is not."""
    path = tmp_path / "file.txt"
    path.write_text("old")

    def refuse(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with nullcontext() if passed_over else pytest.raises(OSError, match="Input/output"):  # noqa: SIM117
        with atomic_path(path) as temporary:
            temporary.write_text("new")
    assert path.read_text(encoding="utf-8") == ("new" if passed_over else "old")
    assert list(tmp_path.iterdir()) == [path]
