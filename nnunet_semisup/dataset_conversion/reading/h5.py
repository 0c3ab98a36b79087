"""The semi-supervised literature's h5 files, which hold voxels and no geometry."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_semisup.dataset_conversion.cases import DatasetForm
from nnunet_semisup.dataset_conversion.volume import Geometry, UnreadableFileError, Volume
from nnunet_semisup.errors import UserError


def h5_variant(
    raw: DatasetForm,
    spacing: float | tuple[float, ...],
    description: str,
    axes: str = "xyz",
    **particular: Any,
) -> DatasetForm:
    """Return the form in which a data set's h5 files come.

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


def read_h5(path: Path, key: str, spacing: float | tuple[float, ...], axes: str = "xyz") -> Volume:
    """Read one data set of an h5 file, which has no geometry of its own.

    Args:
        path: the file.
        key: name of the data set inside it.
        spacing: voxel size in millimetres to assume: one number, or one along each of x, y, z.
        axes: order of the stored axes, ``"xyz"`` or ``"zyx"``.

    Raises:
        UnreadableFileError: truncated, not HDF5, or without ``key``.
        ImportError: h5py is not installed.
    """
    import h5py

    if path.stat().st_size == 0:
        raise UnreadableFileError("the file is empty (0 bytes)")
    try:
        with h5py.File(path, "r") as file:
            if key not in file:
                raise UnreadableFileError(f"has no data set '{key}', only {sorted(file)}")
            stored = np.asarray(file[key])
    except UnreadableFileError:
        raise
    except Exception as error:  # on damaged files h5py raises many kinds
        raise UnreadableFileError(f"damaged or not an HDF5 file ({error})") from error
    if stored.dtype.kind not in "biuf":
        raise UnreadableFileError(f"the data set '{key}' does not hold numbers")
    array = np.ascontiguousarray(stored if axes == "zyx" else stored.T)
    ndim = array.ndim
    steps = spacing if isinstance(spacing, tuple) else (spacing,) * ndim
    direction = tuple(float(v) for v in np.eye(ndim).ravel())
    return Volume(array, Geometry(array.shape[::-1], steps, (0.0,) * ndim, direction))
