"""Drawing patches of memory-mapped cases leaves the files, and later draws, as they are."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_semisup.registry import find_method
from nnunet_semisup.trainers import nnUNetTrainerSupervised
from tests.contract.test_equals_stock import assert_same_batch


def unpack(packed, folder):
    """Writes every case of ``packed`` as the ``.npz``, ``.npy`` and ``.pkl`` of nnU-Net."""
    folder.mkdir()
    cases = infer_dataset_class(str(packed))(str(packed))
    for case in cases.identifiers:
        image, mask, _, _ = cases.load_case(case)
        image, mask = image[:], mask[:].astype(np.int16)
        mask[image[:1] < np.median(image)] = -1
        (folder / f"{case}.npz").write_bytes(b"not read where there is an .npy")
        np.save(folder / f"{case}.npy", image)
        np.save(folder / f"{case}_seg.npy", mask)
        if (packed / f"{case}.pkl").is_file():
            shutil.copy(packed / f"{case}.pkl", folder)


def draw(trainer):
    """Ten batches of each loader."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    return [next(loader) for loader in trainer.get_dataloaders() for _ in range(10)]


@pytest.mark.parametrize(
    ("trainer", "settings"),
    [
        (find_method("nnUNetTrainerPseudoLabel"), {}),
        (nnUNetTrainerSupervised, {}),
        (nnUNetTrainerSupervised, {"stock_loader": True}),
    ],
)
def test_files_and_later_draws_stay_as_they_are(build, datasets, tmp_path, trainer, settings):
    """nnunetv2 2.8.1 with batchgeneratorsv2 0.3.6 writes to the map, which ends the process."""
    built = build(trainer, "labels3d", start=False, **settings)
    built.initialize()
    names = ("nnUNetPlans_3d_fullres", "nnUNetPlans_3d_fullres_unlabeled")
    for name in names:
        unpack(datasets("labels3d") / name, tmp_path / name)
    built.preprocessed_dataset_folder = str(tmp_path / names[0])
    if hasattr(built, "unlabeled_cases"):
        for case in built.unlabeled_cases.folders:
            built.unlabeled_cases.folders[case] = str(tmp_path / names[1])
    built.configuration_manager.configuration["use_mask_for_norm"] = [True]
    files = {path: path.read_bytes() for path in tmp_path.glob("*/*.npy")}
    assert len(files) == 12
    first, second = draw(built), draw(built)
    assert {path: path.read_bytes() for path in files} == files
    for batch, again in zip(first, second, strict=True):
        assert_same_batch(batch, again)
        if "unlabeled" in batch:
            assert torch.equal(batch["unlabeled"], again["unlabeled"])
