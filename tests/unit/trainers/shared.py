"""A plan, cases and batches that are made up, and what a trainer does with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_semisup.data.labeled_views import MAP, WEAK
from nnunet_semisup.training.settings import CONFIG_NAME

DATASET, PLANS, CONFIGURATION = "Dataset900_MadeUp", "nnUNetPlans", "2d"
PATCH, FEATURES = (16, 16), [4, 8, 8]
DATASET_JSON = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "left": 1, "heart": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def plans(continues: bool = False) -> dict[str, Any]:
    """Plans of a small 2D U-Net."""
    stages = len(FEATURES)
    arguments = {
        "n_stages": stages,
        "features_per_stage": FEATURES,
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3]] * stages,
        "strides": [[1, 1], *[[2, 2]] * (stages - 1)],
        "n_conv_per_stage": [1] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(PATCH),
        "spacing": [1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration},
        "continue_training": continues,
    }


def make_batch(trainer: Any, seed: int = 0) -> dict[str, Any]:
    """Random images, targets of every resolution and, where the trainer asks, weak views, maps."""
    random = torch.Generator().manual_seed(seed)
    shape = (2, 1, *PATCH)
    image, weak, unlabeled = (torch.randn(shape, generator=random) for _ in range(3))
    scales = trainer._get_deep_supervision_scales()
    sizes = [[round(n * s) for n, s in zip(PATCH, scale, strict=True)] for scale in scales]
    targets = [torch.randint(0, 3, (2, 1, *size), generator=random).float() for size in sizes]
    valid = torch.ones(shape, dtype=torch.bool)
    valid[..., :2, :] = False
    batch = {"data": image, "target": targets, "unlabeled": unlabeled, "unlabeled_valid": valid}
    if trainer.labeled_weak:
        batch[WEAK] = weak
    for name, make in trainer.labeled_maps.items():
        batch[MAP + name] = torch.stack([make(one, trainer.regions) for one in targets[0]])
    return batch


def write_cases(preprocessed: Path) -> None:
    """Write a labeled, a validation and an unlabeled case as nnU-Net preprocesses them."""
    folder = preprocessed / DATASET / f"{PLANS}_{CONFIGURATION}"
    folder.mkdir(parents=True)
    (folder.parent / "gt_segmentations").mkdir()
    (folder.parent / "gt_segmentations" / "validation.nii.gz").touch()
    random = np.random.default_rng(0)
    for case in ("labeled", "validation", "unlabeled"):
        label = np.zeros((1, 1, 20, 20), np.int16)
        label[..., 4:10, 4:10], label[..., 10:16, 6:12] = 1, 2
        image = (label + random.normal(0, 0.1, label.shape)).astype(np.float32)
        places = {number: np.argwhere(label == number) for number in (1, 2)}
        whole = [label.shape] * 4
        content = image, label, {"class_locations": places}
        nnUNetDatasetBlosc2.save_case(*content, str(folder / case), *whole)
    splits = [{"train": ["labeled"], "val": ["validation"], "unlabeled": ["unlabeled"]}]
    (folder.parent / "splits_final.json").write_text(json.dumps(splits))


def save(trainer: Any) -> str:
    """Write the record and a checkpoint with which the present epoch goes on; return its path."""
    path = Path(trainer.output_folder) / "checkpoint_latest.pth"
    path.with_name(CONFIG_NAME).write_text(json.dumps(trainer.configuration()))
    trainer.write_checkpoint(str(path), trainer.current_epoch)
    return str(path)


def step(trainer: Any, seed: int = 0) -> dict[str, float]:
    """Do one training step on a made-up batch; return the terms that it logs."""
    torch.manual_seed(seed)
    with mock.patch.object(trainer.monitor, "add", wraps=trainer.monitor.add) as added:
        trainer.train_step(make_batch(trainer, seed))
    trainer.iteration += 1
    return {name: float(value) for name, value in added.call_args.args[0].items()}
