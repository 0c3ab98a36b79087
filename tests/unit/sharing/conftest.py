"""Model folders as trainings leave them, of tiny networks that nothing has trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image

from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.sharing.card import Terms
from nnunet_semisup.sharing.export import Export, export
from nnunet_semisup.training.checkpoint import KEY

DATASET = "Dataset901_Toy"
SECRETS = ("patient_anna", "patient_bert", "patient_carl", "/home/alice", "secret-host")
"""What must not travel: names of cases, paths, a machine's name."""
_RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
PLANS: dict[str, Any] = {
    "dataset_name": DATASET,
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [999, 1, 1],
    "original_median_shape_after_transp": [1, 24, 24],
    "image_reader_writer": "NaturalImage2DIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {"mean": 1.0, "std": 1.0}},
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [16, 16],
            "median_image_size_in_voxels": [24, 24],
            "spacing": [1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": _RESAMPLING,
            "resampling_fn_seg_kwargs": {**_RESAMPLING, "is_seg": True},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": _RESAMPLING,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet."
                "PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": [4, 8, 8],
                    "conv_op": "torch.nn.modules.conv.Conv2d",
                    "kernel_sizes": [[3, 3]] * 3,
                    "strides": [[1, 1], [2, 2], [2, 2]],
                    "n_conv_per_stage": [1, 1, 1],
                    "n_conv_per_stage_decoder": [1, 1],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
            "batch_dice": True,
        }
    },
}
DATASET_JSON = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "a": 1, "b": 2},
    "file_ending": ".png",
    "numTraining": 5,
    "licence": "CC BY 4.0",
    "description": "of /home/alice",
    "training": ["patient_anna"],
}


def checkpoint_of(cls: Any, fold: int, trainer: str) -> dict[str, Any]:
    """Return the content of a checkpoint whose predicting network a class builds."""
    plans = PlansManager(PLANS)
    plan = PlannedNetwork(plans, plans.get_configuration("2d"), 1, 3, False)
    torch.manual_seed(fold)
    weights = cls.build_network_architecture(*plan.arguments).state_dict()
    own = {
        "version": "0.1.0",
        "trainer": trainer,
        "configuration": {"seed": 3, "num_epochs": 2, "mark": "/home/alice/runs"},
        "trained_on": ["patient_anna", "patient_bert"],
        "start_weights": {"file": "/home/alice/start.pth", "origin": "nnUNetTrainer"},
        "training_network": {f"predictor.{key}": value for key, value in weights.items()},
    }
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {}, "param_groups": []},
        "grad_scaler_state": None,
        "logging": {"ema_fg_dice": [np.float64(0.5)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 2,
        "init_args": {
            "plans": PLANS,
            "configuration": "2d",
            "fold": fold,
            "dataset_json": DATASET_JSON,
            "device": torch.device("cpu"),
        },
        "trainer_name": cls.__name__,
        "inference_allowed_mirroring_axes": (0, 1),
        **({KEY: own} if trainer != "nnUNetTrainer" else {}),
    }


def write_fold(
    model: Path, fold: int = 0, cls: Any = nnUNetTrainer, trainer: str = "nnUNetTrainerCPS"
) -> Path:
    """Write what a training leaves in the folder of a fold, and give its checkpoint."""
    folder = model / f"fold_{fold}"
    (folder / "validation").mkdir(parents=True)
    torch.save(checkpoint_of(cls, fold, trainer), folder / "checkpoint_final.pth")
    record = {"unlabeled_cases": ["patient_carl"], "hyperparameters": {"seed": 3}}
    (folder / "semisup_config.json").write_text(json.dumps(record))
    (folder / "debug.json").write_text(
        json.dumps({"torch_version": "2.9.0", "hostname": "secret-host"})
    )
    metrics = [{"1": {"Dice": 0.8 + i / 100}, "2": {"Dice": float("nan")}} for i in range(3)]
    cases = [
        {"metrics": one, "reference_file": f"/home/alice/patient_{fold}_{i}.png"}
        for i, one in enumerate(metrics)
    ]
    summary = {"metric_per_case": cases}
    (folder / "validation" / "summary.json").write_text(json.dumps(summary))
    return folder / "checkpoint_final.pth"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A model folder of CPS with one fold."""
    folder = tmp_path / "trained" / DATASET / "nnUNetTrainerCPS__nnUNetPlans__2d"
    write_fold(folder)
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return folder


@pytest.fixture
def pack(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """Export that folder, and give the zip."""

    def run(name: str = "model.zip", folds: tuple[Any, ...] = (0,), **more: Any) -> Path:
        file = tmp_path / name
        checkpoint = more.pop("checkpoint", "checkpoint_final.pth")
        export(Export(trained, folds, checkpoint, file, **more))
        return file

    return run


@pytest.fixture
def terms() -> Terms:
    return Terms("CC-BY-4.0", "Doe et al., 2026", "Jane Doe", "Siemens Aera 1.5 T")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of two images to predict."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(2):
        pixels = generator.integers(0, 255, (24, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"case{number}_0000.png")
    return folder


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody else's folders of nnU-Net."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / "elsewhere" / name))
    return tmp_path / "elsewhere" / "results"
