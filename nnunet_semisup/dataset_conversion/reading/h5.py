"""The semi-supervised literature's h5 files, which hold voxels and no geometry."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from typing import Any

from nnunet_semisup.dataset_conversion.cases import DatasetForm
from nnunet_semisup.dataset_conversion.reading.volume import read_h5
from nnunet_semisup.errors import UserError


def h5_variant(
    raw: DatasetForm,
    spacing: float | tuple[float, ...],
    description: str,
    axes: str = "xyz",
    **particular: Any,
) -> DatasetForm:
    """The form in which a data set's h5 files come.

    Args:
        raw: the form of the data set's own files; name, channels, labels, reference and licence
            hold for the h5 files too, its checks do not.
        spacing: voxel size in millimetres to assume: one number, or one along each of x, y, z.
        description: for ``dataset.json``.
        axes: order of the stored axes, ``"xyz"`` or ``"zyx"``.
        particular: further fields of the form.

    Raises:
        UserError: a spacing is not positive, or h5py is not installed.
    """
    steps = spacing if isinstance(spacing, tuple) else (spacing,)
    for step in steps:
        need_spacing(step)
    need_h5py()
    fields: dict[str, Any] = {
        "source": "h5",
        "description": description,
        "read_image": partial(read_h5, key="image", spacing=spacing, axes=axes),
        "read_label": partial(read_h5, key="label", spacing=spacing, axes=axes),
        "check": None,
        "check_voxels": None,
        "regions_class_order": None,
        "label_advice": "",
        "images_ready": False,
        "assumptions": {
            "spacing": list(spacing) if isinstance(spacing, tuple) else spacing,
            "axes": ", ".join(axes),
        },
    }
    return replace(raw, **(fields | particular))


def need_h5py() -> None:
    """Refuse h5 files where they cannot be read.

    Raises:
        UserError: h5py is not installed.
    """
    if importlib.util.find_spec("h5py") is None:
        raise UserError("h5 files need h5py; type: pip install h5py")


def need_spacing(spacing: float) -> None:
    """Refuse a voxel size that cannot be.

    Raises:
        UserError: not a positive number of millimetres.
    """
    if not 0 < spacing < float("inf"):
        raise UserError(f"--spacing {spacing:g} is not possible; give millimetres above 0.")
