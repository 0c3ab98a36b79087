"""The voxel size that microscopy software writes into a TIFF; nnU-Net's reader passes it over.

OME-TIFF has it in XML (``PhysicalSizeX`` with a unit, micrometres by default, `OME model
<https://docs.openmicroscopy.org/ome-model/6.3.1/developers/model-overview.html>`_), ImageJ in its
description (``spacing``, ``unit``) and in the resolution of the first page.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from xml.etree import ElementTree

import tifffile

_MICRO_SIGN = "\u00b5m"
_MM = {
    "nm": 1e-6,
    _MICRO_SIGN: 1e-3,
    "\u03bcm": 1e-3,
    "um": 1e-3,
    "micron": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "m": 1000.0,
}
"""Millimetres in a unit; micrometre is written with either of two letters."""


def size_in_metadata(path: Path) -> tuple[float, float, float] | None:
    """Return the voxel size ``(z, y, x)`` in mm; ``None`` where the file does not say all of it."""
    # Damage is named when the file is read.
    with contextlib.suppress(Exception), tifffile.TiffFile(path) as file:
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
        * _MM[pixels.attrib.get(f"PhysicalSize{axis}Unit", _MICRO_SIGN)]
        for axis in "ZYX"
    )
    return z, y, x


def _of_imagej(file: tifffile.TiffFile) -> tuple[float, float, float]:
    content = file.imagej_metadata or {}
    factor = _MM[content["unit"]]
    tags = file.pages.first.tags
    across = (tags[name].value for name in ("YResolution", "XResolution"))
    y, x = (below / above * factor for above, below in across)
    return float(content["spacing"]) * factor, y, x
