"""The versions that ``pyproject.toml`` allows belong together, and are those that are tested."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import matrix
from tests.matrix import PROJECT, constraints, lowest, requirements, table

ALL = [(group, one) for group, one in requirements() if one.marker is None or one.marker.evaluate()]
each = pytest.mark.parametrize(("group", "one"), ALL, ids=lambda value: str(value))
OF_NNUNET = [one for one in map(Requirement, requires("nnunetv2")) if one.marker is None]


def installed(one):
    """Return the version of a requirement's distribution, or nothing where it is not installed."""
    try:
        return version(one.name)
    except PackageNotFoundError:
        return None


@each
def test_a_requirement_says_its_lowest_version_and_allows_it(group, one):
    assert one.specifier.contains(lowest(one)), "its upper bound is below"


@each
def test_what_is_installed_is_within_the_bounds(group, one):
    """Extras may be missing, but for those that the tests need."""
    found = installed(one)
    assert found is None or one.specifier.contains(found)
    assert found is not None or group not in ("dependencies", "test")


@pytest.mark.parametrize("needed", OF_NNUNET, ids=str)
def test_the_lowest_versions_are_those_that_nnunet_takes(needed):
    ours = [
        lowest(one)
        for _, one in ALL
        if canonicalize_name(one.name) == canonicalize_name(needed.name)
    ]
    assert all(needed.specifier.contains(bound) for bound in ours)


def test_one_bound_for_one_package():
    held = constraints("lowest")
    names = [line.partition("==")[0] for line in held]
    assert len(set(names)) == len(names)
    assert "torch==2.5" in held
    assert not any(name.startswith("mamba") for name in names)
    assert constraints("newest") == []


def test_a_requirement_without_a_lowest_version_is_found():
    with pytest.raises(ValueError, match="not enough values"):
        lowest(Requirement("numpy<3"))


def test_rows_are_the_ends_of_the_pythons_listed():
    assert PROJECT["requires-python"] == f">={matrix.ROWS['lowest']}"
    assert matrix.ROWS["newest"] == max(
        matrix.PYTHONS, key=lambda text: [int(part) for part in text.split(".")]
    )


def test_tests_of_the_matrix_exist():
    assert [
        test for test in matrix.TESTS if not (matrix.ROOT / test.partition("::")[0]).exists()
    ] == []


def test_table_has_a_column_for_each_row():
    of = len(matrix.SHOWN)
    lines = table([["lowest", "3.10", *["1"] * of, "9", "5 passed"]]).splitlines()
    assert lines[0] == "|  | lowest |"
    assert lines[2] == "| Python | 3.10 |"
    assert lines[-1] == "| tests | 5 passed |"


def test_the_page_shows_a_table_of_the_command():
    page = (matrix.ROOT / "docs" / "install.md").read_text("utf-8")
    shown = page.split("<!-- matrix -->\n")[1].split("<!-- /matrix -->")[0].splitlines()
    drawn = table([["lowest", *["1"] * (len(shown) - 2)]]).splitlines()
    assert [line.split("|")[1] for line in shown] == [line.split("|")[1] for line in drawn]
    rows = dict(line.strip("|").split("|", 1) for line in shown)
    for name, requirement in ((one.name, one) for _, one in ALL if one.name in matrix.SHOWN):
        below, above = (cell.strip() for cell in rows[f" {name} "].split("|"))
        assert requirement.specifier.contains(above)
        assert below == lowest(requirement) or below.startswith(f"{lowest(requirement)}.")
