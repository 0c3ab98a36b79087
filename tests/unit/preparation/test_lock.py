"""Locks of a work that several commands share: what runs beside what."""

from __future__ import annotations

import pytest

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation import lock
from nnunet_semisup.preparation.lock import exclusive_lock, lock_of_part

WHOLE = (0, 1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder; nobody waits."""
    monkeypatch.setattr(lock, "WAIT", 0.0)
    return tmp_path / "ranked"


def runs_beside(folder, one, other):
    """Tell whether a part can start while another one runs."""
    with lock_of_part(folder, *one):
        try:
            with lock_of_part(folder, *other):
                return True
        except UserError:
            return False


@pytest.mark.parametrize(
    ("one", "other", "beside"),
    [
        ((0, 4), (3, 4), True),
        ((0, 4), (0, 4), False),
        ((0, 4), (1, 3), False),
        ((0, 4), WHOLE, False),
        (WHOLE, (0, 4), False),
        (WHOLE, WHOLE, False),
    ],
)
def test_parts_of_one_division_run_beside_each_other(folder, one, other, beside):
    assert runs_beside(folder, one, other) == beside
    with lock_of_part(folder, *WHOLE):
        pass
    assert list(folder.parent.iterdir()) == []


def test_the_whole_is_locked_as_by_others(folder):
    refused = pytest.raises(UserError, match=r"writing to .*ranked")
    with exclusive_lock(folder), refused, lock_of_part(folder, 0, 2):
        pass


def test_folders_of_similar_names_do_not_meet(folder):
    with lock_of_part(folder, 0, 2), lock_of_part(folder.with_name("rank[e]d"), *WHOLE):
        pass
