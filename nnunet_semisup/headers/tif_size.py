"""The voxel size that microscopy software writes into a TIFF, which nnU-Net's reader never looks at.

OME-TIFF has it in XML (``PhysicalSizeX`` with a unit, micrometres by default, `OME model
<https://docs.openmicroscopy.org/ome-model/6.3.1/developers/model-overview.html>`_), ImageJ in its
description (``spacing``, ``unit``) and in the resolution of the first page.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from xml.etree import ElementTree

import tifffile

_MM = {
    "nm": 1e-6,
    "µm": 1e-3,
    "μm": 1e-3,
    "um": 1e-3,
    "micron": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "m": 1000.0,
}
"""Millimetres in a unit; micrometre is written with either of two letters."""


def size_in_metadata(path: Path) -> tuple[float, float, float] | None:
    """Return the voxel size ``(z, y, x)`` in mm; ``None`` where the file does not say all of it."""
    with contextlib.suppress(Exception):  # damage is named when the file is read
        with tifffile.TiffFile(path) as file:
            if file.ome_metadata:
                return _of_ome(file.ome_metadata)
            if file.imagej_metadata:
                return _of_imagej(file)
    return None


def _of_ome(xml: str) -> tuple[float, float, float]:
    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    if pixels is None:
        raise ValueError("no Pixels")
    z, y, x = (
        float(pixels.attrib[f"PhysicalSize{axis}"])
        * _MM[pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm")]
        for axis in "ZYX"
    )
    return z, y, x


def _of_imagej(file: tifffile.TiffFile) -> tuple[float, float, float]:
    content = file.imagej_metadata or {}
    factor = _MM[content["unit"]]
    tags = file.pages.first.tags
    y, x = (
        tags[name].value[1] / tags[name].value[0] * factor
        for name in ("YResolution", "XResolution")
    )
    return float(content["spacing"]) * factor, y, x
