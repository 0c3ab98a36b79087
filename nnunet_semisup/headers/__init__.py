"""Claims of files about themselves, by their formats' standards, and who reads them otherwise.

One place for units, for where the voxel size comes from, for scale and offset, polarity, palette
and upright: converters, verification, preprocessing and evaluation all ask here.
"""

from __future__ import annotations

from pathlib import Path

from nnunet_semisup.headers import meta, nifti, nrrd, picture
from nnunet_semisup.headers.content import misnamed


def misreading(
    path: Path, is_label: bool = False, by_nibabel: bool = False, trust_affine: bool = False
) -> str | None:
    """Return why nnU-Net would read a file as something else than it says; ``None`` if it doesn't.

    Damage is not looked for; a header that cannot be understood is named when the file is read.

    Args:
        path: a scan, a label or a picture.
        is_label: the file holds label values.
        by_nibabel: nnU-Net's reader is one of :data:`nifti.NIBABEL_READERS`.
        trust_affine: the caller takes the voxel size of NIfTI from the affine.
    """
    name = path.name.lower()
    if fault := misnamed(path):
        return fault
    try:
        if nifti.is_nifti(path):
            return nifti.misreading(nifti.read_nifti_header(path), by_nibabel, trust_affine)
        if name.endswith(nrrd.ENDINGS):
            return nrrd.misreading(path)
        if name.endswith(meta.ENDINGS):
            return meta.misreading(path)
        if name.endswith(picture.ENDINGS):
            return picture.misreading(path, is_label)
    except (ValueError, OSError):
        return None
    return None
