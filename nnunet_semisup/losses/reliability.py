"""How far a prediction is borne out by the features below it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.precision import float32
from nnunet_semisup.losses.targets import PseudoLabel, one_hot


@torch.no_grad()
@float32
def prototype_reliability(
    features: Tensor, probs: Tensor, label: PseudoLabel, regions: bool
) -> Tensor:
    """Return ``1 - (cos(f, m_c) - p_c)^2``, the mean over classes c, or one a region.

    MLRP (Su et al., Medical Image Analysis 2024) and its released code. ``m_c`` is the mean feature
    of the voxels of an image that are labeled c; where there are none, the cosine is 0. Since a
    cosine may be -1, the result can be as low as -3.

    Args:
        features: ``(B, F, *spatial)``.
        probs: ``(B, C, *spatial)`` probabilities of the same prediction.
        label: its hard labels; voxels without weight are in no mean.
        regions: channels overlap.

    Returns:
        ``(B, 1, *spatial)``, for regions ``(B, C, *spatial)``; without gradient.
    """
    voxels = features.flatten(2)
    members = one_hot(label.target, probs.shape[1], regions) * label.weight
    sums = torch.einsum("bcn,bfn->bcf", members.flatten(2), voxels)
    cosine = torch.einsum("bcf,bfn->bcn", F.normalize(sums, dim=2), voxels)
    cosine = cosine / voxels.norm(dim=1, keepdim=True).clamp_min(1e-12)
    reliable = 1.0 - (cosine.view_as(probs) - probs).square()
    return reliable if regions else reliable.mean(1, keepdim=True)
