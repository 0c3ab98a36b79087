"""Load a frozen DINOv2 as reference for feature alignment, lazily through timm.

[0] Oquab et al., DINOv2, TMLR 2024, arXiv 2304.07193. Weights are taken from a local file, else
    from the local hub cache, else from the hub, and never replaced by random ones.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import hub
from nnunet_semisup.safe_files import read_checkpoint_file

MODEL = "vit_small_patch14_dinov2.lvd142m"
WIDTH = 384
PATCH = 14
VARIABLE = "NNUNET_SEMISUP_DINOV2"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights_location() -> str | None:
    """Return the path of the weights on this machine; ``None`` if the hub has to give them.

    Raises:
        UserError: the file named by the variable does not exist, timm is not installed, or the hub
            cannot be reached.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not os.path.isfile(named):
            raise _unavailable(f"{VARIABLE} names {named}, which is not a file")
        return named
    try:
        import timm

        repository = timm.get_pretrained_cfg(MODEL).hf_hub_id
        return hub.find(repository, ("model.safetensors", "pytorch_model.bin"))
    except ImportError as error:
        raise _unavailable(f"{error.name} is not installed (pip install timm)") from error
    except hub.UnavailableError as error:
        raise _unavailable(str(error)) from error


def _unavailable(reason: str) -> UserError:
    return UserError(
        f"The weights of {MODEL} cannot be had: {reason}. Download them where there is a network "
        f"and set {VARIABLE} to the file, or train without alignment: "
        'nnUNet_semisup_set="foundation_model=none".'
    )


class FrozenDINOv2(nn.Module):
    """Compute patch features of slices on a given grid.

    Args:
        pretrained: load the weights; ``False`` gives random ones, for tests only.

    Raises:
        UserError: there are no weights, or their file holds code.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        import timm

        arguments: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True}
        if pretrained:
            path = weights_location()
            if path is not None:
                if not path.endswith(".safetensors"):
                    # timm 1.0.22 unpickles a file, though not what it downloads.
                    read_checkpoint_file(path)
                arguments["pretrained_cfg_overlay"] = {"file": path}
        self.model = timm.create_model(MODEL, pretrained=pretrained, **arguments)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenDINOv2:
        """Stay in evaluation mode always."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, slices: Tensor, grid: tuple[int, int]) -> Tensor:
        """Compute features of 2D slices.

        Args:
            slices: ``(N, 3, H, W)`` with values in [0, 1].
            grid: rows and columns of features wanted; slices are resized to 14 times that.

        Returns:
            ``(N, rows * columns, 384)``.
        """
        size = (PATCH * grid[0], PATCH * grid[1])
        images = F.interpolate(slices, size=size, mode="bilinear", antialias=True)
        maps = self.model.forward_intermediates(
            (images - self.mean) / self.std, indices=[-1], intermediates_only=True, norm=True
        )[0]
        return maps.flatten(2).transpose(1, 2)

    def of_grid(self, images: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return ``(B * slabs, N, 384)`` features of patches on the positions of a grid.

        Args:
            images: ``(B, C, *spatial)`` normalised intensities.
            grid: spatial size of the feature map to compare with.
        """
        return self(slices_for_grid(images, grid), grid[-2:])


@torch.no_grad()
def slices_for_grid(images: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Return the middle slice of each slab of a patch, as pictures.

    Args:
        images: ``(B, C, *spatial)`` normalised intensities; three channels are taken as colours,
            of any other number the first channel is repeated.
        grid: the feature map's spatial size; its first axis counts the slabs in 3D.

    Returns:
        ``(B * slabs, 3, H, W)`` in [0, 1], cut at the 0.5 and 99.5 percentiles of each patch.
    """
    if images.shape[1] != 3:
        images = images[:, :1].expand(-1, 3, *[-1] * (images.ndim - 2))
    flat = images.flatten(1).float()
    flat = flat[:, :: max(1, flat.shape[1] // 2**20)]
    shape = (-1, *[1] * (images.ndim - 1))
    low = flat.quantile(0.005, 1).view(shape)
    high = flat.quantile(0.995, 1).view(shape)
    unit = ((images - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    if unit.ndim == 4:
        return unit
    depth, slabs = unit.shape[2], grid[0]
    # Computed on the device: indexing with a list would wait for it.
    middles = (2 * torch.arange(slabs, device=unit.device) + 1) * depth // (2 * slabs)
    return unit.index_select(2, middles).transpose(1, 2).flatten(0, 1)
