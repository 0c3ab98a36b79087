"""Every command reads what the standard says, or names the file; never a third thing."""

import numpy as np
import pytest

from tests.formats.harness import outcomes
from tests.formats.matrix import ROWS, plain_of


def check_reading(row, found):
    """The outcome of a command that accepted the file is the standard's."""
    assert row.spacing is not None
    np.testing.assert_allclose(found.spacing, row.spacing, rtol=1e-5)
    if found.direction is not None and row.direction is not None:
        np.testing.assert_allclose(found.direction, row.direction, atol=1e-3)
    if found.values is not None:
        np.testing.assert_allclose(found.values, row.values(row.image()), rtol=1e-6)
    if found.hd95 is not None:
        assert found.hd95 == pytest.approx(row.spacing[0])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_file_is_read_by_its_standard_or_named(row, tmp_path):
    found = outcomes(row, plain_of(row), tmp_path)
    refused = {name for name, outcome in found.items() if outcome.fault}
    assert refused == set(row.refused) & found.keys(), {n: o.fault for n, o in found.items()}
    for name, outcome in found.items():
        if not outcome.fault:
            check_reading(row, outcome)
            continue
        assert row.fault in outcome.fault
        assert "unl_000" in outcome.fault or "p1" in outcome.fault, name
