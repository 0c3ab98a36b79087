"""Queries in the decoder of the U-Net, in the manner of DK-UXNet.

[0] Semi-supervised medical image segmentation via query distribution consistency (DK-UXNet), ISBI
    2024, arXiv 2311.12364: its abstract, figures and code; its text could not be had.
[1] Yu et al., kMaX-DeepLab: k-means mask transformer, ECCV 2022, arXiv 2207.04044.

Layers of [1] at the bottleneck and after the first two decoder stages ([0], figure 1) move N
queries. A voxel's logits are those of the queries, by the share of each in the voxel. The layers:
:mod:`nnunet_semisup.networks.kmax`, the decoder: :mod:`nnunet_semisup.networks.kmax_decoder`.

Deviates from the released code of [0]: the plan's encoder; each query is classified by itself
(there all of them together, by a perceptron that knows their order); every layer is supervised
(there none of the assignments gets a gradient); one tensor without deep supervision, as nnU-Net
predicts; masks at half the resolution, whose merged classes are interpolated; widths and number of
queries follow from the plan and the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_semisup.architectures.insert import Insert
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.kmax_decoder import LEAST_WIDTH, KMaxDecoder

QUERIES = 32
QUERIES_PER_CLASS = 4
"""At least: half of them are for the background, so two remain for each class."""
WIDTH = 128
"""Greatest width of a query; [1] has 256."""
FEWEST_STAGES = 3


def options(
    architecture: Mapping[str, Any], patch_size: Sequence[int], queries: str = str(QUERIES)
) -> dict[str, Any]:
    """Return number and width of a plan's queries.

    Args:
        architecture: arguments of the plan's network.
        patch_size: of the plan.
        queries: their number, 2 or more; with many classes there are more.

    Raises:
        UserError: no such number, or a network with fewer than three stages.
    """
    if not queries.isdecimal() or int(queries) < 2:
        raise UserError(f"kmax: queries={queries} must be a whole number, 2 or more.")
    if architecture["n_stages"] < FEWEST_STAGES:
        raise UserError(
            f"kmax needs a network of {FEWEST_STAGES} stages or more; this one has "
            f"{architecture['n_stages']}."
        )
    features = architecture["features_per_stage"]
    widest = max(features) if isinstance(features, (list, tuple)) else features
    return {"queries": int(queries), "width": min(WIDTH, max(LEAST_WIDTH, widest // 8 * 8))}


def install(network: Any, queries: int, width: int) -> None:
    """Put the queries into the decoder.

    Args:
        network: U-Net of dynamic_network_architectures.
        queries: their number, at least four times that of the classes.
        width: their number of channels.
    """
    number = max(queries, QUERIES_PER_CLASS * network.decoder.num_classes)
    network.decoder = KMaxDecoder(network.decoder, number, width)


KMAX = Insert("kmax", options, install, is_head=True)
