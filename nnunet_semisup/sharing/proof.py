"""The part of a checkpoint that predicts, and the proof that it does so as before."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor, nn

from nnunet_semisup.sharing.model import TrainedModel


def light_checkpoint(model: TrainedModel, number: int) -> dict[str, Any]:
    """Return what predicting takes of a fold's checkpoint.

    Optimizer, random states, further networks, the log and the names of the training cases stay
    behind.

    Args:
        model: that is shared.
        number: place of the fold among the model's.
    """
    content = model.contents[number]
    axes = "inference_allowed_mirroring_axes"
    return {
        "network_weights": content["network_weights"],
        "current_epoch": content.get("current_epoch", 0),
        "init_args": {
            "plans": model.plans,
            "configuration": model.configuration,
            "fold": model.folds[number],
            "dataset_json": model.bare_dataset,
        },
        "trainer_name": model.shared_trainer,
        **({axes: content[axes]} if axes in content else {}),
    }


def differing_folds(model: TrainedModel, shared: Path) -> list[str]:
    """Return sentences about folds that the shared folder does not predict to the last byte.

    One patch of noise, of the plan's size and one for each fold, goes through the network that the
    training's class builds with the training's weights, and through the one that nnU-Net itself
    builds and fills from the shared folder, both on the CPU.

    Args:
        model: as it was trained.
        shared: the folder as it goes into the zip.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # that on a CPU nothing is done on a GPU
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(shared), model.folds, model.checkpoint)
    other: Any = getattr(predictor.network, "_orig_mod", predictor.network)
    own = _network_of_training(model)
    faults = []
    for number, fold in enumerate(model.folds):
        patch = _patch(model, number)
        expected = _logits(own, model.contents[number]["network_weights"], patch)
        found = _logits(other, predictor.list_of_parameters[number], patch)
        if not torch.isfinite(expected).all():
            faults.append(f"fold {fold} predicts NaN or infinite values for a patch of noise")
        elif expected.numpy().tobytes() != found.numpy().tobytes():
            faults.append(f"fold {fold} predicts otherwise as {model.shared_trainer}")
    return faults


def _patch(model: TrainedModel, seed: int) -> Tensor:
    """Return a patch ``(1, C, *spatial)`` of noise."""
    size = model.plan.input_channels, *model.plan.configuration_manager.patch_size
    return torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))


def _network_of_training(model: TrainedModel) -> nn.Module:
    """Return the network that the training's class builds for prediction."""
    build, plan = model.cls.build_network_architecture, model.plan
    if "plans_manager" in inspect.signature(build).parameters:
        return build(*plan.arguments)
    configuration = plan.configuration_manager  # as nnU-Net 2.8.1 calls older classes
    return build(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        plan.input_channels,
        plan.output_channels,
        enable_deep_supervision=False,
    )


@torch.inference_mode()
def _logits(network: nn.Module, weights: Mapping[str, Tensor], patch: Tensor) -> Tensor:
    network.load_state_dict(weights)
    network.eval()
    logits: Tensor = network(patch)
    return logits
