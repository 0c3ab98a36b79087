"""Headers of pictures: their values and their upright, and what nnU-Net makes of these.

``skimage.io.imread`` (scikit-image 0.26 with tifffile 2026.3.3 and Pillow 13.0), which nnU-Net
calls, gives the values of a TIFF as they are stored, whatever PhotometricInterpretation, colour map
and Orientation say, passes over the Orientation of a PNG, and gives 8 of the 16 bits of a colour
PNG. It takes the 3 or 4 slices of a TIFF stack for colours.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

TIF_ENDINGS = (".tif", ".tiff")
_EXIF_ENDINGS = (".jpg", ".jpeg", ".gif")
ENDINGS = (".png", ".bmp", *TIF_ENDINGS, *_EXIF_ENDINGS)
_ORIENTATION = 274
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = (3, 4)
_PNG_COLOURS = (2, 4, 6)
"""Colour types of PNG with several samples a pixel."""


@dataclass(frozen=True)
class PictureHeader:
    """Hold what a header says.

    Attributes:
        orientation: the EXIF or TIFF tag; 1 is upright.
        bits: of a stored sample.
        white_is_zero: a TIFF whose largest value is black.
        palette: colours ``(n, 3)`` uint8 of a TIFF that holds indices into them.
        slices: of a TIFF with a third axis; 0 without.
        third_axis: what that axis is, by OME's or ImageJ's metadata: ``Z``, ``C``, ``T`` ...
        loses_bits: a PNG with 16 bits a sample and several samples a pixel.
    """

    orientation: int = 1
    bits: int = 8
    white_is_zero: bool = False
    palette: np.ndarray | None = None
    slices: int = 0
    third_axis: str = ""
    loses_bits: bool = False

    @property
    def greys(self) -> np.ndarray | None:
        """Return the palette ``(n,)`` if it has no colours."""
        if self.palette is None or (self.palette != self.palette[:, :1]).any():
            return None
        return self.palette[:, 0]


def read_picture_header(path: Path) -> PictureHeader:
    """Read what is needed of the header of a picture; nothing of other files.

    Raises:
        Exception: whatever tifffile or Pillow raise for a damaged file.
    """
    ending = path.suffix.lower()
    if ending in TIF_ENDINGS:
        return _read_tif(path)
    if ending == ".png":
        return _read_png(path)
    if ending in _EXIF_ENDINGS:
        with Image.open(path) as picture:
            return PictureHeader(int(picture.getexif().get(_ORIENTATION, 1)))
    return PictureHeader()


def not_upright(header: PictureHeader) -> str | None:
    """Return what to do about a picture that is stored rotated or mirrored."""
    if header.orientation in (0, 1):
        return None
    return (
        f"is stored rotated (EXIF orientation {header.orientation}): some programs turn it upright "
        "and some, nnU-Net among them, do not; save it upright"
    )


def not_depth(header: PictureHeader) -> str | None:
    """Return what to do about pages that are no slices of a volume by their own metadata."""
    if header.third_axis == "C":
        what, advice = "channels of one picture", "save each as a file of its own, CASE_0000, "
        advice += "CASE_0001 ..."
    elif header.third_axis == "T":
        what, advice = "points in time", "save each as a case of its own"
    else:
        return None
    return (
        f"has {header.slices} pages that are {what} by its metadata (OME or ImageJ), of which "
        f"nnU-Net's reader makes slices or colours; {advice}"
    )


def too_many_bits(header: PictureHeader) -> str | None:
    """Return what to do about a picture of which half of the bits would be lost."""
    if not header.loses_bits:
        return None
    return (
        "is a PNG with 16 bits a colour, of which nnU-Net's reader (scikit-image, Pillow) gives 8; "
        "save it as TIFF, or with 8 bits"
    )


def misreading(path: Path, is_label: bool) -> str | None:
    """Return why nnU-Net would take other values, or another upright, than the file shows.

    Args:
        path: a picture.
        is_label: indices into a palette of colours are the values of a label.
    """
    try:
        header = read_picture_header(path)
    except Exception:  # whatever is wrong with the file is named when it is read
        return None
    if fault := not_upright(header) or too_many_bits(header) or not_depth(header):
        return fault
    if header.white_is_zero:
        return (
            "is stored with white as zero (PhotometricInterpretation WhiteIsZero), of which "
            "nnU-Net's reader takes no notice: dark and bright, object and background are "
            "exchanged; save it with black as zero, or let nnUNetv2_semisup_convert write it"
        )
    if header.slices in _COLOURS:
        return (
            f"has {header.slices} slices, which nnU-Net's reader takes for the colours of one "
            "picture; save it as NIfTI"
        )
    greys = header.greys
    if header.palette is None or (is_label and greys is None):
        return None
    if greys is not None and np.array_equal(greys, np.arange(len(greys))):
        return None
    return (
        "holds indices into a palette, which nnU-Net's reader takes for the values themselves; "
        "save it without palette, or let nnUNetv2_semisup_convert write it"
    )


def _read_tif(path: Path) -> PictureHeader:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        orientation = page.tags.get(_ORIENTATION)
        series = file.series[0]
        is_stack = series.ndim == 3 and "S" not in series.axes
        is_palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE
        return PictureHeader(
            1 if orientation is None else int(orientation.value),
            int(page.bitspersample),
            page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
            _as_bytes(np.asarray(page.colormap).T) if is_palette else None,
            series.shape[0] if is_stack else 0,
            series.axes[0] if is_stack else "",
        )


def _as_bytes(colours: np.ndarray) -> np.ndarray:
    """Return TIFF's 16-bit colours as 8 bits; some programs write 8 bits into the 16."""
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _read_png(path: Path) -> PictureHeader:
    """Read the chunks before and after the voxels, which are passed over."""
    bits, colour, orientation = 8, 0, 1
    with path.open("rb") as file:
        if file.read(8) != _PNG_SIGNATURE:
            raise ValueError("not a PNG file")
        while len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            if kind == b"IHDR":
                bits, colour = struct.unpack(">8xBB3x", file.read(length))
            elif kind == b"eXIf":
                exif = Image.Exif()
                exif.load(file.read(length))
                orientation = int(exif.get(_ORIENTATION, 1))
            else:
                file.seek(length, 1)
            file.seek(4, 1)
    return PictureHeader(orientation, bits, loses_bits=bits == 16 and colour in _PNG_COLOURS)
