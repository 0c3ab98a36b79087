"""Encoder and decoder run apart, for parts that stand on the features between or within them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Decoded(NamedTuple):
    """Hold logits of a decoder and the features that they were made of.

    Attributes:
        logits: as the decoder gives them; a list under deep supervision, full resolution first.
        features: one ``(B, C, *spatial)`` a decoder stage, shallow to deep: the first has full
            resolution, as the first logits, and the segmentation layer stands on it.
        masks: ``(B, N, *spatial)`` logits of N queries' shares in each voxel, one a layer, of a
            decoder with queries (:mod:`nnunet_semisup.networks.kmax_decoder`).
    """

    logits: Any
    features: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] = ()


def encode(network: Any, x: Tensor) -> Sequence[Tensor]:
    """Return the features ``(B, C, *spatial)`` that a network's decoder takes, shallow to deep.

    Args:
        network: a network with ``encoder`` and ``decoder``. Its method ``encode``, if it has one,
            does more than the encoder (texts or codes at some stages) and goes first.
        x: images ``(B, C, *spatial)``.
    """
    return network.encode(x) if hasattr(network, "encode") else network.encoder(x)


def feature_width(decoder: Any) -> int:
    """Return the number of channels of a decoder's features at full resolution."""
    return int(decoder.seg_layers[-1].in_channels)


def decode(decoder: Any, skips: Sequence[Tensor]) -> Decoded:
    """Return what a decoder makes of ``skips``, bit-equal to its own forward, and its features.

    The steps are those of ``UNetDecoder.forward`` and ``UNetResDecoder.forward`` of
    dynamic_network_architectures 0.4; a forward hook of the decoder as a whole does not act, hooks
    of its parts do.

    Args:
        decoder: of one of the plans' U-Nets, or like one (:mod:`nnunet_semisup.networks.decoders`);
            ``transpconvs`` may be any modules that upsample. Its method ``decode``, if it has one,
            does more than that (queries between the stages) and is called instead.
        skips: features of the encoder, shallow to deep.
    """
    if hasattr(decoder, "decode"):
        decoded: Decoded = decoder.decode(skips)
        return decoded
    x = skips[-1]
    features: list[Tensor] = []
    for upsample, skip, stage in zip(
        decoder.transpconvs, reversed(skips[:-1]), decoder.stages, strict=True
    ):
        x = stage(torch.cat((upsample(x), skip), 1))
        features.insert(0, x)
    layers = reversed(decoder.seg_layers)
    if not decoder.deep_supervision:
        return Decoded(next(layers)(x), tuple(features))
    logits = [layer(at) for layer, at in zip(layers, features, strict=True)]
    return Decoded(logits, tuple(features))
