"""NIfTI headers by the standard (nifti1.h), and where libraries read another thing.

Voxel size and axes come from the sform or the qform, lengths are in the unit of ``xyzt_units``, and
a ``scl_slope`` of 0 means that the voxels count as they are stored. SimpleITK 2.5.7 takes the voxel
size from ``pixdim`` always and adds ``scl_inter`` whatever the slope; nibabel 5.4.2 knows no units.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from nnunet_semisup.headers.axes import are_sheared

ENDINGS = (".nii", ".nii.gz")
NIBABEL_READERS = ("NibabelIO", "NibabelIOWithReorient")
"""nnU-Net's readers that take the geometry from nibabel."""
SIZE_TOLERANCE = 1e-3
"""Relative difference at which two voxel sizes are two."""
_UNITS = {0: ("mm", 1.0), 1: ("metre", 1000.0), 2: ("mm", 1.0), 3: ("micrometre", 0.001)}
_SPATIAL_UNIT_BITS = 0b111
_HEADER_BYTES = 540
_QUATERNION_ROUNDING = 1e-3
"""By how much the norm of a quaternion may exceed 1 and still be one after rounding."""
_NIBABEL_ROUNDING = 1.5 * float(np.finfo(np.float32).eps)
"""By how much nibabel allows it to."""


@dataclass(frozen=True)
class NiftiHeader:
    """Hold what one header says; lengths in mm.

    Attributes:
        dimension: number of axes.
        unit: "mm" (also where none is declared), "metre", "micrometre", or the unknown code.
        unit_declared: whether the header says so.
        factor: mm in one of these.
        pixdim: signed lengths of the axes of space, at most three.
        sform: 4 x 4 affine to right, anterior, superior; ``None`` where it is not coded.
        qform: likewise.
        quaternion_norm: of the qform's three numbers; the standard allows at most 1.
        slope: ``scl_slope``.
        intercept: ``scl_inter``.
        data_end: bytes of header and voxels.
    """

    dimension: int
    unit: str
    unit_declared: bool
    factor: float
    pixdim: tuple[float, ...]
    sform: np.ndarray | None
    qform: np.ndarray | None
    quaternion_norm: float
    slope: float
    intercept: float
    data_end: int

    @property
    def affine_spacing(self) -> tuple[float, ...] | None:
        """Return the sform's size in mm where it is the only affine and ``pixdim`` denies it."""
        if self.sform is None or self.qform is not None:
            return None
        lengths = np.linalg.norm(self.sform[:3, : len(self.pixdim)], axis=0)
        same = np.allclose(lengths, np.abs(self.pixdim), rtol=SIZE_TOLERANCE, atol=0)
        return None if same else tuple(float(length) for length in lengths)

    @property
    def is_sheared(self) -> bool:
        """Return whether the sform, the only affine, is no rectangular grid, which ITK refuses."""
        if self.sform is None or self.qform is not None:
            return False
        axes = self.sform[:3, :3]
        return bool(np.linalg.norm(axes, axis=0).all()) and are_sheared(axes)

    @property
    def contradicts_itself(self) -> bool:
        """Return whether both affines are coded and differ."""
        if self.sform is None or self.qform is None:
            return False
        return not np.allclose(self.sform, self.qform, atol=1e-2 * self.factor)


def is_nifti(path: Path) -> bool:
    """Return whether a file is NIfTI by its ending."""
    return path.name.lower().endswith(ENDINGS)


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header of a file without its voxels.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be opened, or is not gzip although its name says so.
    """
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return parse_header(file.read(_HEADER_BYTES))
    except EOFError as error:
        raise ValueError("the compressed data end too early") from error


def parse_header(content: bytes) -> NiftiHeader:
    """Return what the first bytes of a file say.

    Raises:
        ValueError: they are no NIfTI header.
    """
    try:
        header = raw_header(content)
        shape = header.get_data_shape()
        code = int(header["xyzt_units"]) & _SPATIAL_UNIT_BITS
        unit, factor = _UNITS.get(code, (f"code {code}", 1.0))
        norm = _forgive_rounding(header)
        bits = int(header["bitpix"]) * math.prod(int(n) for n in shape)
        axes = min(len(shape), 3)
        return NiftiHeader(
            dimension=len(shape),
            unit=unit,
            unit_declared=code in _UNITS and code != 0,
            factor=factor,
            pixdim=tuple(float(step) * factor for step in header["pixdim"][1 : 1 + axes]),
            sform=_in_mm(header.get_sform(coded=True)[0], factor),
            qform=_in_mm(_qform(header), factor),
            quaternion_norm=norm,
            slope=float(header["scl_slope"]),
            intercept=float(header["scl_inter"]),
            data_end=int(float(header["vox_offset"])) + bits // 8,
        )
    except Exception as error:  # on damaged headers nibabel raises many kinds
        raise ValueError(str(error)) from error


def raw_header(content: bytes) -> Any:
    """Return nibabel's header of a file's first bytes, unchecked and as it is stored."""
    kind = image_class(content).header_class
    return kind(binaryblock=content[: kind.sizeof_hdr], check=False)


def image_class(content: bytes) -> Any:
    """Return nibabel's class for a file by its first bytes."""
    sizes = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
    return nibabel.Nifti2Image if 540 in sizes else nibabel.Nifti1Image


def without_rounding(content: bytes) -> bytes:
    """Return a file's bytes with a quaternion that nibabel accepts, if rounding explains it.

    nibabel refuses a norm above 1 where nifti1_io.c, and so SimpleITK, takes a half turn.
    """
    header = raw_header(content)
    before = header.binaryblock
    _forgive_rounding(header)
    after: bytes = header.binaryblock
    return content if after == before else after + content[len(after) :]


def open_nifti(path: Path) -> tuple[NiftiHeader, Any]:
    """Decompress a whole file; returns what its header says and nibabel's image of it.

    Raises:
        Exception: the file is damaged; nibabel raises many kinds.
    """
    content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.decompress(content)
    return parse_header(content), image_class(content).from_bytes(without_rounding(content))


def misreading(
    header: NiftiHeader, by_nibabel: bool = False, trust_affine: bool = False
) -> str | None:
    """Return why nnU-Net would read a file as something else than its header says.

    Args:
        header: of the file.
        by_nibabel: nnU-Net's reader is one of :data:`NIBABEL_READERS`.
        trust_affine: the caller takes the voxel size from the affine.
    """
    if min(header.pixdim, default=0) < 0:
        return (
            f"its header has the voxel size pixdim {numbers(header.pixdim)}; the standard wants "
            "positive numbers, and some programs mirror such a scan. Save it with positive ones"
        )
    trusted = trust_affine and header.affine_spacing is not None
    if not trusted and not (np.isfinite(header.pixdim).all() and all(header.pixdim)):
        shown = ", ".join(f"{step:g}" for step in header.pixdim)
        return (
            f"the header gives no voxel size (pixdim {shown}); nnU-Net would take 1 mm. Save it "
            "with one"
        )
    if header.affine_spacing is not None and not trust_affine:
        return (
            f"the voxel size of its sform is {numbers(header.affine_spacing)} mm, that of its "
            f"pixdim {numbers(header.pixdim)} mm, and it has no qform: SimpleITK, nibabel and so "
            "nnU-Net take pixdim, the standard means the sform. Save it with one size in both, or "
            "let nnUNetv2_semisup_convert and _evaluate take the sform's with --trust-affine"
        )
    adds = math.isfinite(header.intercept) and header.intercept != 0
    if not by_nibabel and adds and (header.slope == 0 or math.isnan(header.slope)):
        return (
            f"its header has scl_slope {header.slope:g} and scl_inter {header.intercept:g}: by the "
            f"standard the voxels count as stored, SimpleITK and so nnU-Net adds "
            f"{header.intercept:g}. Save it with scl_inter 0 if they are right as stored, with "
            "scl_slope 1 if not"
        )
    too_long = header.quaternion_norm > 1 + _NIBABEL_ROUNDING
    if by_nibabel and too_long and header.qform is not None and header.sform is None:
        return (
            f"its qform's quaternion has the norm {header.quaternion_norm:.6g}, more than 1, which "
            "nibabel and so nnU-Net refuses; save it with a sform"
        )
    return None


def unit_fault(unit: str, reference: str) -> str:
    """Return what is wrong with a unit where nnU-Net reads by nibabel, which knows none."""
    return (
        f"declares its spacing in {unit}, the training images in {reference} (NIfTI header field "
        f"xyzt_units), and nnU-Net's reader takes the numbers as they are; save it in {reference}"
    )


def numbers(values: Iterable[float]) -> str:
    """Return lengths in words, such as ``(1, 1, 2.5)``."""
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _in_mm(affine: Any, factor: float) -> np.ndarray | None:
    """Return an affine with lengths in mm."""
    if affine is None:
        return None
    scaled = np.array(affine, dtype=float)
    scaled[:3] *= factor
    return scaled


def _qform(header: Any) -> Any:
    """Return the qform as nifti1_io.c has it, for any sign of pixdim; ``None`` where not coded."""
    if int(header["qform_code"]) <= 0:
        return None
    copy = header.copy()
    copy["pixdim"][1:4] = np.abs(copy["pixdim"][1:4])
    return copy.get_qform()


def _forgive_rounding(header: Any) -> float:
    """Shorten a quaternion that is too long by rounding to norm 1; returns the norm before.

    A qfac of 0 counts as 1.

    Raises:
        ValueError: it is coded and no rounding explains its length.
    """
    names = ("quatern_b", "quatern_c", "quatern_d")
    quaternion = np.array([float(header[name]) for name in names])
    norm = float(np.linalg.norm(quaternion))
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    if int(header["qform_code"]) <= 0 or norm <= 1:
        return norm
    if not norm <= 1 + _QUATERNION_ROUNDING:
        raise ValueError(f"the qform's quaternion has the norm {norm:g}; it is 1 at most")
    for name, value in zip(names, quaternion / (norm * (1 + 1e-7)), strict=True):
        header[name] = value
    return norm


def contradicting_headers(paths: Sequence[Path]) -> str | None:
    """Return a line about NIfTI files whose two affines differ; ``None`` if there is none."""
    nifti = [path for path in paths if is_nifti(path)]
    number = sum(_contradicts_itself(path) for path in nifti)
    if not number:
        return None
    return (
        f"{number} of {len(nifti)} NIfTI files have a sform that contradicts their qform; the "
        "voxel size is that of the qform, as SimpleITK and so nnU-Net read it. Other programs may "
        "show these files otherwise"
    )


def _contradicts_itself(path: Path) -> bool:
    """Return whether a header has two different affines; damage is judged elsewhere."""
    try:
        return read_nifti_header(path).contradicts_itself
    except (ValueError, OSError):
        return False
