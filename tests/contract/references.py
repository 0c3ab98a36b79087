"""Loss terms of a step as the papers' equations say, in plain torch.

Nothing of the package's losses and mixing is used. A reference gets a :class:`Step` with everything
that is random in a step, and returns the terms by their names in the log.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Step:
    """Hold what one step is made of.

    Attributes:
        labeled: ``(B, C, *spatial)`` images with nnU-Net's augmentation; ``weak`` without.
        target: nnU-Net's; ``label`` class numbers or regions at full resolution; ``known`` 1 where
            it is to be used, ``(B, 1, *spatial)``.
        unlabeled: images; ``valid`` is 0 in padding.
        student: gives the logits of each member, at full resolution and at half of it.
        teacher: gives logits of an image in its n-th pass.
        noise: n-th noise that is added to an image.
        strong: gives the strong view of an image.
        box: bool, 1 inside.
        stock_loss: nnU-Net's.
        progress: fraction of the training done.
        trainer: with hyper-parameters only.
    """

    labeled: Tensor
    weak: Tensor
    target: Any
    label: Tensor
    known: Tensor
    unlabeled: Tensor
    valid: Tensor
    student: Callable[[Tensor], list[list[Tensor]]]
    teacher: Callable[[Tensor, int], Tensor]
    noise: Callable[[int], float]
    strong: Callable[[Tensor], Tensor]
    box: Tensor
    stock_loss: Callable[[Any, Any], Tensor]
    regions: bool
    progress: float
    trainer: Any

    def full(self, image: Tensor) -> list[Tensor]:
        """Return the logits of each member at full resolution."""
        return [member[0] for member in self.student(image)]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return softmax, or sigmoid of each region."""
        return logits.sigmoid() if self.regions else logits.exp() / logits.exp().sum(1, True)

    def classes(self, logits: Tensor) -> Tensor:
        """Return the most probable class, or each region that is more probable than not."""
        return (logits > 0).float() if self.regions else logits.argmax(1, keepdim=True)

    def ramp(self, length: float) -> float:
        """Return ``exp(-5 (1 - t / length)^2)``."""
        return 1.0 if length == 0 else math.exp(-5 * (1 - min(self.progress / length, 1)) ** 2)

    @property
    def weight(self) -> float:
        """Weight of unlabeled terms at this step."""
        return self.trainer.unlabeled_weight * self.ramp(self.trainer.rampup_length)

    def supervised(self) -> list[Tensor]:
        """Return nnU-Net's loss of each member."""
        outputs = self.student(self.labeled)
        deep = isinstance(self.target, list)
        return [self.stock_loss(out if deep else out[0], self.target) for out in outputs]


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values where a mask that is broadcast to them is 1."""
    mask = mask.expand_as(values).to(values.dtype)
    return (values * mask).sum() / mask.sum()


def cross_entropy(step: Step, logits: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``-log p`` of the labels where a mask is 1."""
    if step.regions:
        probs = logits.sigmoid()
        return mean_where(-(label * probs.log() + (1 - label) * (1 - probs).log()), mask)
    return mean_where(-step.probabilities(logits).gather(1, label.long()).log(), mask)


def mean_teacher(step: Step) -> dict[str, Tensor]:
    """Return Mean Teacher's terms (Tarvainen and Valpola 2017, eq. 1)."""
    (student,) = step.full(step.strong(step.unlabeled))
    teacher = step.teacher(step.unlabeled, 0)
    square = (step.probabilities(student) - step.probabilities(teacher)) ** 2
    (supervised,) = step.supervised()
    return {"supervised": supervised, "consistency": step.weight * mean_where(square, step.valid)}


def uamt(step: Step) -> dict[str, Tensor]:
    """Return UA-MT's terms (MICCAI 2019, eq. 2 to 4)."""
    target = step.probabilities(step.teacher(step.unlabeled + step.noise(0), 0))
    passes = range(1, 1 + step.trainer.mc_passes)
    mean = torch.stack(
        [step.probabilities(step.teacher(step.unlabeled + step.noise(n), n)) for n in passes]
    ).mean(0)
    if step.regions:
        doubt = -(mean * (mean + 1e-6).log() + (1 - mean) * (1 - mean + 1e-6).log())
        greatest = math.log(2)
    else:
        doubt = -(mean * (mean + 1e-6).log()).sum(1, keepdim=True)
        greatest = math.log(mean.shape[1])
    sure = doubt < (0.75 + 0.25 * step.ramp(1.0)) * greatest
    assert 0 < sure.float().mean() < 1
    (student,) = step.full(step.unlabeled)
    square = (step.probabilities(student) - target) ** 2
    (supervised,) = step.supervised()
    consistency = mean_where(square, sure & step.valid)
    return {"supervised": supervised, "consistency": step.weight * consistency}


def cps(step: Step) -> dict[str, Tensor]:
    """Return CPS's terms (CVPR 2021, eq. 1 to 3)."""
    first, second = step.full(step.unlabeled)
    supervised = step.supervised()
    crossed = [
        step.weight * cross_entropy(step, logits, step.classes(other.detach()), step.valid)
        for logits, other in ((first, second), (second, first))
    ]
    return {
        "supervised_1": supervised[0],
        "supervised_2": supervised[1],
        "consistency_1": crossed[0],
        "consistency_2": crossed[1],
    }


def mcnet(step: Step) -> dict[str, Tensor]:
    """Return MC-Net's terms for any number of decoders (MICCAI 2021, eq. 2 and 3; MC-Net+)."""

    def sharpened(probs: Tensor) -> Tensor:
        power = probs.double() ** (1 / step.trainer.temperature)
        other = (1 - probs.double()) ** (1 / step.trainer.temperature)
        return power / (power + other if step.regions else power.sum(1, keepdim=True))

    def disagreement(image: Tensor, mask: Tensor) -> Tensor:
        probs = [step.probabilities(logits) for logits in step.full(image)]
        pairs = itertools.permutations(probs, 2)
        return sum(mean_where((one - sharpened(other)) ** 2, mask) for one, other in pairs)

    images = len(step.labeled) + len(step.unlabeled)
    everywhere = torch.ones_like(step.labeled[:, :1], dtype=torch.bool)
    labeled = disagreement(step.labeled, everywhere) * len(step.labeled) / images
    unlabeled = disagreement(step.unlabeled, step.valid) * len(step.unlabeled) / images
    supervised = enumerate(step.supervised(), 1)
    return {
        **{f"supervised_{number}": loss for number, loss in supervised},
        "agreement_labeled": step.weight * labeled,
        "consistency": step.weight * unlabeled,
    }


def bcp(step: Step) -> dict[str, Tensor]:
    """Return BCP's terms (CVPR 2023, eq. 1 to 8; before ``mix_start`` with labeled patches)."""
    y_l, known = step.label, step.known.expand_as(step.label)
    if step.progress < step.trainer.mix_start:
        image, label, mask = (
            torch.where(step.box, of.roll(1, 0), of) for of in (step.weak, y_l, known)
        )
        everywhere = torch.ones_like(step.box)
        return {"mixed": _mixed_loss(step, image, label, mask, everywhere)}
    y_u = step.classes(step.teacher(step.unlabeled, 0))
    if step.trainer.largest_component:
        y_u = _largest(y_u, step.regions)
    valid = step.valid.expand_as(y_u).to(known.dtype)
    labeled, unlabeled = (
        [torch.cat([of, of])[: max(len(y_l), len(y_u))] for of in stream]
        for stream in ((step.weak, y_l, known), (step.unlabeled, y_u, valid))
    )
    into = [torch.where(step.box, u, x) for x, u in zip(labeled, unlabeled, strict=True)]
    out = [torch.where(step.box, x, u.roll(1, 0)) for x, u in zip(labeled, unlabeled, strict=True)]
    return {
        "mixed_in": _mixed_loss(step, *into, ~step.box),
        "mixed_out": _mixed_loss(step, *out, step.box),
    }


def _mixed_loss(
    step: Step, image: Tensor, label: Tensor, mask: Tensor, annotated: Tensor
) -> Tensor:
    (outputs,) = step.student(image)
    maps = list(zip(step.trainer.deep_supervision_weights, outputs, strict=True))
    of_labels = lomix_maps(outputs) if step.trainer.labeled_loss == "lomix" else maps
    total = torch.zeros(())
    for share, origin, weighted in ((1.0, annotated, of_labels), (step.weight, ~annotated, maps)):
        if not origin.any():
            continue
        for weight, logits in weighted:
            small, part = (
                F.interpolate(values.float(), logits.shape[2:], mode="nearest-exact")
                for values in (label, mask * origin)
            )
            dice_and_ce = _dice(step, logits, small, part) + cross_entropy(
                step, logits, small, part
            )
            total = total + weight * share * 0.5 * dice_and_ce
    return total


def lomix_maps(
    outputs: Sequence[Tensor], convolutions: Mapping[str, Any] | None = None
) -> list[tuple[float, Tensor]]:
    """Return LoMix's maps of two outputs, one half as large, with their weights.

    Args:
        outputs: of the decoder.
        convolutions: of the two learned mixtures, ``cat_0_1`` and ``awf_0_1``; where there are
            none yet, both are the mean.
    """
    fine, coarse = outputs[:2]
    mode = "trilinear" if fine.dim() == 5 else "bilinear"
    coarse_there = F.interpolate(coarse, scale_factor=2, mode=mode)
    cat = awf = (fine + coarse_there) / 2
    if convolutions is not None:
        joined, count = torch.cat([fine, coarse_there], 1), fine.shape[1]
        weight, bias = _of(convolutions["cat_0_1"])
        shape = 1, -1, *[1] * (fine.dim() - 2)
        cat = torch.einsum("oc,bc...->bo...", weight, joined) + bias.view(shape)
        weight, bias = _of(convolutions["awf_0_1"])
        scores = [
            (weight[k].view(shape) * joined[:, k * count : (k + 1) * count]).sum(1, True) + bias[k]
            for k in (0, 1)
        ]
        share = 1 / (1 + (scores[1] - scores[0]).exp())
        awf = share * fine + (1 - share) * coarse_there
    # nnU-Net's weights of two levels are 2/3 and 1/3; a mixture has the one of its finer member.
    maps = [(2 / 9, fine), (1 / 9, coarse)]
    return maps + [(2 / 9, mixed) for mixed in (fine + coarse_there, cat, awf)]


def _of(convolution: Any) -> tuple[Tensor, Tensor]:
    return convolution.weight.flatten(1), convolution.bias


def _dice(step: Step, logits: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    probs = step.probabilities(logits)
    numbers = torch.arange(probs.shape[1]).view(1, -1, *[1] * (probs.dim() - 2))
    wanted = label if step.regions else (label == numbers).float()
    losses = []
    for image in range(len(probs)):
        for channel in range(probs.shape[1]):
            where = mask[image][min(channel, mask.shape[1] - 1)]
            p, y = probs[image, channel], wanted[image, channel]
            overlap, whole = (p * y * where).sum(), ((p + y) * where).sum()
            losses.append(1 - (2 * overlap + 1e-5) / (whole + 1e-5))
    return torch.stack(losses).mean()


def _largest(label: Tensor, regions: bool) -> Tensor:
    """Keep the largest part of each class; of regions within the largest part of all of them."""
    if regions:
        label = label * _largest(label.amax(1, keepdim=True).long(), False).to(label.dtype)
    kept = torch.zeros_like(label)
    for image, channel in itertools.product(range(len(label)), range(label.shape[1])):
        found = label[image, channel].numpy()
        for value in [1] if regions else range(1, int(label.max()) + 1):
            parts, number = ndimage.label(found == value, np.ones([3] * found.ndim))
            sizes = ndimage.sum_labels(found == value, parts, range(1, number + 1))
            for part in np.flatnonzero(sizes == sizes.max(initial=0)) + 1:
                kept[image, channel][torch.from_numpy(parts == part)] = value
    return kept
