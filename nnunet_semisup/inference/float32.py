"""Sum the windows of nnU-Net's sliding window in float32.

nnU-Net 2.8.1 sums logits times a Gaussian weight, and the weights, in float16. At the borders of a
scan, where a single window reaches, the weights are so small that float16 counts them in whole
steps: the quotient of the two sums is a logit rounded to a whole number, and classes that come out
equal go to the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from torch import Tensor


class _Windows:
    """Sum weighted windows ``(classes, *spatial)`` and their weights, in float32."""

    def __init__(self, shape: tuple[int, ...], weights: Tensor, slicers: list[Any]) -> None:
        self.logits = torch.zeros(shape, device=weights.device)
        self.total = torch.zeros(shape[1:], device=weights.device)
        self.weights = weights
        self.slicers = iter(slicers)

    def add(self, logits: Tensor) -> None:
        """Add the window that is next."""
        slicer = next(self.slicers)
        self.logits[slicer] += logits.to(self.weights.device) * self.weights
        self.total[slicer[1:]] += self.weights

    def mean(self) -> Tensor:
        """Return the weighted means."""
        return self.logits.div_(self.total)


class Float32Predictor(nnUNetPredictor):
    """Predict as nnU-Net does with sums in float32, and count the voxels that they change.

    Windows, weights and test-time augmentation are nnU-Net's, whose float16 sums are made beside
    its own, on the same passes of the network.

    Attributes:
        changed: voxels, of all images of one network, to which float16 gives another class, on the
            plan's grid, before anything is resampled.
        voxels: how many there are.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.changed = 0
        self.voxels = 0
        self._windows: _Windows | None = None
        self._differs: Tensor | None = None

    @torch.inference_mode()
    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        logits: Tensor = super()._internal_maybe_mirror_and_predict(x)
        if self._windows is not None:
            self._windows.add(logits[0])
        return logits

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(
        self, data: Tensor, slicers: list[Any], do_on_device: bool = True
    ) -> Tensor:
        device = self.device if do_on_device else torch.device("cpu")
        weights = torch.ones((), device=device)
        if self.use_gaussian:
            size = tuple(self.configuration_manager.patch_size)
            weights = compute_gaussian(
                size,
                sigma_scale=1.0 / 8,
                value_scaling_factor=10,
                dtype=torch.float32,
                device=device,
            )
        shape = (self.label_manager.num_segmentation_heads, *data.shape[1:])
        self._windows = _Windows(shape, weights, slicers)
        try:
            rounded = super()._internal_predict_sliding_window_return_logits(
                data, slicers, do_on_device
            )
            logits = self._windows.mean()
        finally:
            self._windows = None
        classes = self.label_manager.convert_logits_to_segmentation
        # Without regions nnU-Net 2.8.1 takes the class by NumPy, which reads host memory alone.
        self._differs = classes(logits.cpu()) != classes(rounded.cpu())
        return logits

    @torch.inference_mode()
    def predict_sliding_window_return_logits(self, input_image: Tensor) -> Tensor:
        """Return float32 logits ``(classes, *spatial)`` of a preprocessed image.

        ``input_image`` is ``(channels, *spatial)``. Adds to :attr:`changed` and :attr:`voxels`.
        """
        logits: Tensor = super().predict_sliding_window_return_logits(input_image)
        assert self._differs is not None
        inside = [
            slice((padded - size) // 2, (padded - size) // 2 + size)
            for padded, size in zip(self._differs.shape, input_image.shape[1:], strict=True)
        ]
        differs = self._differs[tuple(inside)]
        self._differs = None
        self.changed += int(differs.sum())
        self.voxels += differs.numel()
        return logits


@contextmanager
def float32_validation() -> Iterator[list[Float32Predictor]]:
    """Make nnU-Net's trainers validate by this predictor, which the yielded list then holds."""
    module = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    stock, made = module.nnUNetPredictor, []

    def make(*args: Any, **kwargs: Any) -> Float32Predictor:
        made.append(Float32Predictor(*args, **kwargs))
        return made[-1]

    module.nnUNetPredictor = make  # type: ignore[attr-defined]
    try:
        yield made
    finally:
        module.nnUNetPredictor = stock  # type: ignore[attr-defined]


def changed_voxels_note(changed: int, voxels: int) -> str:
    """Return what a validation in float32 tells about nnU-Net's float16."""
    return (
        f"Windows summed in float32: {changed} of {voxels} voxels have another class than by "
        f"nnU-Net's float16 ({changed / max(voxels, 1):.2e} of them), before resampling"
    )
