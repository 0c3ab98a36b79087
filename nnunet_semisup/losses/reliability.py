"""Measure how far the features of a prediction bear it out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def prototype_reliability(
    features: Tensor, probs: Tensor, regions: bool, valid: Tensor | None = None
) -> Tensor:
    """Return how well each voxel's probabilities agree with its nearness to the classes.

    MLRP (Su et al., Medical Image Analysis 2024): ``mean over c of 1 - (cos(f, m_c) - p_c)^2``,
    where ``m_c`` is the mean feature of the voxels of the same image predicted as ``c``. Classes
    that none is predicted as have no mean and do not count. A negative result becomes 0: as a
    weight it would drive the learner away from the label. A region is a problem of two classes,
    inside and outside of it.

    Computed in float32, one image after the other, whose features alone are copied.

    Args:
        features: ``(B, D, *spatial)``.
        probs: ``(B, C, *spatial)`` float32.
        regions: channels overlap.
        valid: ``(B, 1, *spatial)`` bool; voxels where it is false are in no mean.

    Returns:
        ``(B, 1, *spatial)`` in [0, 1], for regions one a channel.
    """
    rivals = torch.stack([1.0 - probs, probs], 2) if regions else probs[:, None]
    rivals = rivals.flatten(3)
    with torch.autocast(features.device.type, enabled=False):
        images = [
            _of_image(
                features[number].float().flatten(1),
                rivals[number],
                None if valid is None else valid[number].flatten(),
            )
            for number in range(len(features))
        ]
    return torch.stack(images).unflatten(2, features.shape[2:])


def _of_image(features: Tensor, rivals: Tensor, counted: Tensor | None) -> Tensor:
    """Return ``(G, N)`` of features ``(D, N)`` and probabilities ``(G, K, N)``.

    ``counted`` is ``(N,)`` bool.
    """
    members = torch.zeros_like(rivals).scatter_(1, rivals.argmax(1, keepdim=True), 1.0)
    if counted is not None:
        members = members * counted
    flat = members.flatten(0, 1)
    means = F.normalize(flat @ features.t(), dim=1)  # A mean has the direction of its sum.
    lengths = torch.linalg.vector_norm(features, dim=0).clamp_min(1e-8)
    cosine = (means @ features / lengths).view_as(rivals)
    there = members.any(2, keepdim=True)
    agreement = ((1.0 - (cosine - rivals).square()) * there).sum(1)
    return (agreement / there.sum(1).clamp_min(1)).clamp_min(0.0)
