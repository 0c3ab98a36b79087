"""What unlabeled images are compared with, and by which reader."""

import gzip
import json
import os

import nibabel
import numpy as np
import pytest

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import find_dataset
from nnunet_semisup.preparation.unlabeled_images import check_dataset
from tests.helpers import write_image
from tests.unit.preparation.test_unlabeled_images import FIRST, SPACING, _noise


def test_an_outdated_fingerprint_does_not_count(planned):
    """A mistake of the unit was corrected in all files; the fingerprint still has it."""
    images = [*planned.images.iterdir(), *(planned.raw.folder / "imagesTr").iterdir()]
    for path in images:
        write_image(path, _noise(), [s * 10 for s in SPACING])
    fingerprint = planned.preprocessed / "dataset_fingerprint.json"
    assert check_dataset(find_dataset(501)).cases
    newest = max(path.stat().st_mtime for path in images)
    os.utime(fingerprint, (newest + 1, newest + 1))
    with pytest.raises(UserError, match="about 10 times larger on all axes"):
        check_dataset(find_dataset(501))


def _shear(path):
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[0, 1] = 0.4
    sheared = nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine)
    sheared.set_sform(affine, 1)
    sheared.set_qform(None, 0)
    sheared.header.set_xyzt_units("mm")
    nibabel.save(sheared, path)


def test_sheared_images_for_nibabels_reader(planned):
    """ITK refuses them; nnU-Net's NibabelIO is there for them."""
    for folder in ("imagesTr", "imagesUn"):
        for path in (planned.raw.folder / folder).iterdir():
            _shear(path)
    dataset_json = planned.raw.folder / "dataset.json"
    content = json.loads(dataset_json.read_text(encoding="utf-8"))
    for reader in ("SimpleITKIO", "NibabelIO"):
        content["overwrite_image_reader_writer"] = reader
        dataset_json.write_text(json.dumps(content))
        if reader == "SimpleITKIO":
            with pytest.raises(UserError, match="orthonormal"):
                check_dataset(find_dataset(501))
    assert len(check_dataset(find_dataset(501)).cases) == 3
    whole = (planned.images / FIRST).read_bytes()
    plain = gzip.decompress(whole)
    (planned.images / FIRST).write_bytes(gzip.compress(plain[:-100]))
    with pytest.raises(UserError, match=f"{FIRST} is truncated"):
        check_dataset(find_dataset(501))
