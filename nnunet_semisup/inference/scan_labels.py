"""Labels of whole preprocessed scans, with doubt, by nnU-Net's sliding windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from nnunet_semisup.data.scan_labels import DOUBTFUL
from nnunet_semisup.losses.activation import confidence


class ScanLabeler:
    """Label preprocessed scans as nnU-Net's validation would predict them.

    Args:
        trainer: whose plans, labels and device they are.
        network: gives one output, at full resolution.
        least: confidence of a voxel that is not doubtful.
        mirroring: average over mirrored images, as nnU-Net's prediction does.
    """

    def __init__(self, trainer: Any, network: nn.Module, least: float, mirroring: bool) -> None:
        self.labels = trainer.label_manager
        self.least = least
        self.predictor = nnUNetPredictor(
            use_mirroring=mirroring, device=trainer.device, allow_tqdm=False
        )
        self.predictor.manual_initialization(
            network,
            trainer.plans_manager,
            trainer.configuration_manager,
            None,
            trainer.dataset_json,
            type(trainer).__name__,
            trainer.inference_allowed_mirroring_axes,
        )

    @torch.inference_mode()
    def label(self, image: np.ndarray) -> np.ndarray:
        """Return the class of each voxel, :data:`DOUBTFUL` where the network is not sure.

        Args:
            image: ``(C, *spatial)``; of a 2D plan too, with its slices first.

        Returns:
            ``(*spatial)`` uint8.
        """
        training = self.predictor.network.training
        logits = self.predictor.predict_sliding_window_return_logits(torch.from_numpy(image))
        logits = logits.cpu()  # nnU-Net makes labels of probabilities on the host alone.
        self.predictor.network.train(training)
        probs = self.labels.apply_inference_nonlin(logits.float())
        classes = self.labels.convert_probabilities_to_segmentation(probs)
        sure = confidence(probs[None], self.labels.has_regions)[0].amin(0) >= self.least
        return torch.where(sure, torch.as_tensor(classes), DOUBTFUL).numpy().astype(np.uint8)
