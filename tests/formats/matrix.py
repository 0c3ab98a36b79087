"""All rows, and which of them is the plain one of its kind."""

from __future__ import annotations

from tests.formats import rows_dicom, rows_nifti, rows_pictures, rows_text_headers
from tests.formats.row import Row

ROWS: list[Row] = [*rows_nifti.ROWS, *rows_text_headers.ROWS, *rows_pictures.ROWS, *rows_dicom.ROWS]


def plain_of(row: Row) -> Row:
    """The first row of the same ending and number of axes, which every program reads right."""
    return next(r for r in ROWS if r.ending == row.ending and len(r.shape) == len(row.shape))
