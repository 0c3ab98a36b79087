"""nnU-Net's preprocessing of an image that has no label, without making one up.

nnU-Net 2.8.1 marks in a mask of the scan's size what is not 0, holes filled, brings it to the
target spacing as it brings a label, and writes it. Nothing reads it of an unlabeled case
(:mod:`nnunet_semisup.data.unlabeled`), and only normalisation within a mask needs it before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import (
    bounding_box_to_slice,
    get_bbox_from_mask,
)
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

_WITHOUT_MASK = frozenset(
    ("CTNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization")
)
"""Schemes that never look at the mask."""


def preprocessor_of(configuration: ConfigurationManager) -> type[DefaultPreprocessor]:
    """Return the class that preprocesses unlabeled images: the plan's own unless it is nnU-Net's.

    Args:
        configuration: of the plan.
    """
    found = configuration.preprocessor_class
    return ImagesOnly if found is DefaultPreprocessor else found


class ImagesOnly(DefaultPreprocessor):
    """Make of an image the same voxels as nnU-Net's preprocessor, and a mask of zeros."""

    def run_case_npy(
        self,
        data: np.ndarray,
        seg: np.ndarray | None,
        properties: dict[str, Any],
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict[str, Any] | str,
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Crop, normalise and resample one image, in nnU-Net's order.

        Args:
            data: ``(channels, *spatial)``.
            seg: must be ``None``.
            properties: with ``spacing``; what nnU-Net keeps of a case is added.
            plans_manager: the plan.
            configuration_manager: the configuration.
            dataset_json: is not looked at.

        Returns:
            The image ``(channels, *new)``, zeros ``(1, *new)`` that take no memory, ``properties``.

        Raises:
            ValueError: there is a label.
        """
        if seg is not None:
            raise ValueError("a case with a label is for nnU-Net's own preprocessor")
        order = plans_manager.transpose_forward
        data = data.astype(np.float32).transpose([0, *(axis + 1 for axis in order)])
        spacing = [properties["spacing"][axis] for axis in order]
        properties["shape_before_cropping"] = data.shape[1:]
        data, inside, box = _cropped(data, _needs_mask(configuration_manager))
        properties["bbox_used_for_cropping"] = box
        properties["shape_after_cropping_and_before_resampling"] = data.shape[1:]
        target = configuration_manager.spacing
        if len(target) < len(spacing):
            target = [spacing[0], *target]
        data = self._normalize(
            data,
            inside,
            configuration_manager,
            plans_manager.foreground_intensity_properties_per_channel,
        )
        shape = compute_new_shape(data.shape[1:], spacing, target)
        data = configuration_manager.resampling_fn_data(data, shape, spacing, target)
        return data, _zeros(data), properties


def _needs_mask(configuration: ConfigurationManager) -> bool:
    """Return whether normalising any channel may look at what is outside of the scan."""
    masked = zip(configuration.normalization_schemes, configuration.use_mask_for_norm, strict=True)
    return any(
        within if scheme == "ZScoreNormalization" else scheme not in _WITHOUT_MASK
        for scheme, within in masked
    )


def _cropped(data: np.ndarray, with_mask: bool) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Return an image ``(channels, *spatial)`` cut to where it is not 0, its mask and the box.

    The mask ``(1, *spatial)`` is 0 and, ``with_mask``, -1 outside. Its holes do not change the box.
    """
    if with_mask:
        cut: tuple[np.ndarray, np.ndarray, list[list[int]]] = crop_to_nonzero(data)
        return cut
    shown = data[0] != 0
    for channel in data[1:]:
        shown |= channel != 0
    box = get_bbox_from_mask(shown)
    data = data[(slice(None), *bounding_box_to_slice(box))]
    return data, _zeros(data), box


def _zeros(data: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.zeros((), np.int16), (1, *data.shape[1:]))
