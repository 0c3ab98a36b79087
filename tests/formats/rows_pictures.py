"""PNG written chunk by chunk; TIFF, BMP, GIF and JPEG by the libraries, with the tags in question.

Pictures have no voxel size and count as 1 x 1. Their values are those that a viewer shows: TIFF's
WhiteIsZero and palettes are looked up, PNG's samples of 2 and 4 bits are spread over 8.
"""

from __future__ import annotations

import json
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from tests.formats.row import COMMANDS, NNUNET, Row

_ORIENTATION = 274
_FLAT = ((1.0, 0.0), (0.0, 1.0))
REVERSED = np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[:, None], 3, axis=1)
GREYS = REVERSED[::-1].copy()
REDS = GREYS * np.array([1, 0, 0], np.uint8)


def write_png(
    path: Path,
    stored: np.ndarray,
    bits: int = 8,
    palette: np.ndarray | None = None,
    orientation: int = 0,
) -> None:
    """Write a file: grey, three or four samples a pixel, or indices into a palette."""
    colour = 3 if palette is not None else {2: 0, 3: 2}[stored.ndim]
    if stored.ndim == 3 and stored.shape[-1] == 4:
        colour = 6
    height, width = stored.shape[:2]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    if palette is not None:
        chunks.append((b"PLTE", palette.tobytes()))
    rows = stored.reshape(height, -1)
    if bits < 8:
        spread = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., -bits:]
        lines = np.packbits(spread.reshape(height, -1), axis=1)
    else:
        lines = rows.astype(f">u{bits // 8}")
    chunks.append((b"IDAT", zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))))
    if orientation:
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        chunks.append((b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    chunks.append((b"IEND", b""))
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in chunks:
            file.write(struct.pack(">I", len(data)) + kind + data)
            file.write(struct.pack(">I", zlib.crc32(kind + data)))


def write_tif(path: Path, stored: np.ndarray, **options: Any) -> None:
    """Write a file, with ``orientation`` and a ``palette`` of 8-bit colours if given."""
    orientation, palette = options.pop("orientation", 0), options.pop("palette", None)
    if orientation:
        options["extratags"] = [(_ORIENTATION, "H", 1, orientation, True)]
    if palette is not None:
        options["photometric"] = "palette"
        options["colormap"] = palette.T.astype(np.uint16) * 257
    options.setdefault("photometric", "rgb" if stored.ndim == 3 else "minisblack")
    tifffile.imwrite(path, stored, **options)


def write_stack(path: Path, stored: np.ndarray, **options: Any) -> None:
    """Write a 3D file and the json files in which nnU-Net looks for the voxel size."""
    tifffile.imwrite(path, stored, **{"photometric": "minisblack", **options})
    stem = path.name.removesuffix(".tif")
    for name in (stem, stem.removesuffix("_0000")):
        path.with_name(f"{name}.json").write_text(json.dumps({"spacing": [3.0, 2.5, 2.0]}))


def write_pillow(path: Path, stored: np.ndarray, **options: Any) -> None:
    """Write a file, with an ``orientation`` and a ``palette`` if given."""
    orientation, palette = options.pop("orientation", 0), options.pop("palette", None)
    picture = Image.fromarray(stored)
    if palette is not None:
        picture.putpalette(palette.ravel().tolist())
    if orientation:
        options["exif"] = Image.Exif()
        options["exif"][_ORIENTATION] = orientation
    picture.save(path, **options)


def _row(form: str, ending: str, says: str, write: Any, means: str = "", **options: Any) -> Row:
    fields = ("palette", "orientation", "photometric", "bits")
    how = {name: options.pop(name) for name in fields if name in options}
    options.setdefault("dtype", np.uint8)
    options.setdefault("direction", _FLAT)
    options.setdefault("spacing", (1, 1))
    return Row(form, says, ending, partial(write, **how), means, **options)


_png = partial(_row, "PNG", ".png", write=write_png)
_tif = partial(_row, "TIFF", ".tif", write=write_tif)


def _inverse(stored: np.ndarray) -> np.ndarray:
    return ~stored if stored.dtype == bool else np.iinfo(stored.dtype).max - stored


_ROTATED: dict[str, Any] = {"refused": COMMANDS, "fault": "is stored rotated"}
_TURNED = {**_ROTATED, "orientation": 6, "values": lambda stored: np.rot90(stored, -1)}
_WHITE: dict[str, Any] = {"refused": NNUNET, "fault": "is stored with white as zero",
                          "photometric": "miniswhite"}  # fmt: skip
_COLOURS: dict[str, Any] = {"channels": 3, "labels": False}
_FOREIGN: dict[str, Any] = {"by_nnunet": False}

ROWS = [
    _png("grey, 8 bits"),
    _png("grey, 16 bits", dtype=np.uint16, bits=16),
    _png("grey, 1 bit", dtype=bool, bits=1),
    _png("grey, 2 bits", means="3 is white", bits=2, values=lambda v: (v & 3) * 85, labels=False),
    _png("grey, 4 bits", means="15 is white", bits=4, values=lambda v: (v & 15) * 17, labels=False),
    _png("colours, 8 bits", **_COLOURS),
    _png("colours, 16 bits", means="16 bits", dtype=np.uint16, bits=16,
         values=lambda v: v, refused=COMMANDS, fault="16 bits a colour", **_COLOURS),
    _png("colours and alpha, 8 bits", channels=4, labels=False),
    _png("palette of colours", means="colours", palette=REDS, values=lambda v: REDS[v],
         labels=False),
    _png("Orientation 1", orientation=1),
    _png("Orientation 6", means="turned", **_TURNED),
    _row("BMP", ".bmp", "grey", write_pillow),
    _row("BMP", ".bmp", "colours", write_pillow, **_COLOURS),
    _tif("grey, 8 bits"),
    _tif("grey, 16 bits", dtype=np.uint16),
    _tif("grey, float", dtype=np.float32),
    _tif("grey, 1 bit", dtype=bool),
    _tif("colours, 8 bits", **_COLOURS),
    _tif("colours, 16 bits", dtype=np.uint16, **_COLOURS),
    _tif("white is zero, 1 bit", means="1 is black", dtype=bool, values=_inverse, **_WHITE),
    _tif("white is zero, 8 bits", means="0 is white", values=_inverse, **_WHITE),
    _tif("white is zero, 16 bits", means="0 is white", dtype=np.uint16, values=_inverse, **_WHITE),
    _tif("white is zero, float", means="not defined", dtype=np.float32, spacing=(1, 1),
         values=lambda v: v * np.nan, **{**_WHITE, "refused": COMMANDS}),
    _tif("palette of greys, value = index", palette=GREYS),
    _tif("palette of greys, reversed", means="greys", palette=REVERSED,
         values=lambda v: REVERSED[v, 0], refused=NNUNET, fault="indices into a palette"),
    _tif("palette of colours", means="colours", palette=REDS, values=lambda v: REDS[v],
         labels=False, refused=("verify", "preprocess"), fault="indices into a palette"),
    _tif("Orientation 1", orientation=1),
    _tif("Orientation 3", means="upside down", orientation=3,
         values=lambda v: v[::-1, ::-1], **_ROTATED),
    _row("JPEG", ".jpg", "grey, Orientation 6", write_pillow, "turned",
         labels=False, **_TURNED, **_FOREIGN),
    _row("GIF", ".gif", "palette of colours", write_pillow, "colours", palette=REDS[:4],
         values=lambda v: REDS[v], labels=False, **_FOREIGN),
    _row("TIFF stack", ".tif", "voxel size in a json file beside it", write_stack,
         spacing=(2.0, 2.5, 3.0), direction=None),
    _row("TIFF stack", ".tif", "white is zero", write_stack, "0 is white",
         spacing=(2.0, 2.5, 3.0), direction=None, values=_inverse, **_WHITE),
    _row("TIFF stack", ".tif", "4 slices", write_stack, spacing=(2.0, 2.5, 3.0), direction=None,
         volume=(4, 5, 6), refused=NNUNET, fault="has 4 slices"),
]  # fmt: skip
