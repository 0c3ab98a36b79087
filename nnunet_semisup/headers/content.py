"""Content of a file by its first bytes, where its name says something else."""

from __future__ import annotations

from pathlib import Path

_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_NIFTI_SIZES = (348, 540)
_PAGES = (b"<!doctype html", b"<html")
_LOOKED_AT = 512
_MOST_IN_A_POINTER = 1024
"""Bytes; the pointers of Git LFS and git-annex are shorter."""


def misnamed(path: Path) -> str | None:
    """Return what a file is that its name does not say, with what to do; ``None`` if nothing.

    SimpleITK reads NIfTI that is not compressed under the name ``.nii.gz``, nibabel does not; under
    the name ``.nii`` neither reads what is compressed.

    Args:
        path: a scan, a label or a picture.
    """
    if path.is_symlink() and not path.exists():
        return (
            f"is a link to {path.readlink()}, which is not there; put the file there, with DataLad "
            "or git-annex by 'datalad get' or 'git annex get'"
        )
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT)
        size = path.stat().st_size
    except OSError:
        return None
    return _pointer(start, size) or _other_packing(path.name, start)


def _pointer(start: bytes, size: int) -> str | None:
    """Return what stands in place of a file that was not fetched."""
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself; fetch it with 'git lfs pull'"
    if size <= _MOST_IN_A_POINTER and b"annex/objects/" in start:
        return "is a pointer of git-annex, not the file itself; fetch it with 'git annex get'"
    if start.lstrip().lower().startswith(_PAGES):
        return (
            "is a web page, which the server sent in place of the file; open the link in a "
            "browser, sign in or confirm what it asks, and download the file again"
        )
    return None


def _other_packing(name: str, start: bytes) -> str | None:
    """Return how a file is compressed in another way than its name says."""
    lower = name.lower()
    if start.startswith(_ZIP):
        return "is a zip archive; extract it"
    if lower.endswith(".nii.gz") and _is_nifti(start):
        return (
            f"is NIfTI that is not compressed, though its name ends in .gz; compress it with gzip, "
            f"or rename it to {name[:-3]}"
        )
    if lower.endswith(".nii") and start.startswith(_GZIP):
        return f"is compressed by gzip, though its name says .nii; rename it to {name}.gz"
    return None


def _is_nifti(start: bytes) -> bool:
    """Return whether bytes begin with the size of a NIfTI header, in either order of bytes."""
    return any(int.from_bytes(start[:4], order) in _NIFTI_SIZES for order in ("little", "big"))
