"""One loader for both streams: a batch is a pure function of the seed and its number.

Labeled patches come from nnU-Net's own loader with its own augmentation; unlabeled patches go
through the spatial part of the same augmentation. Because every batch is made under random
generators that are seeded with (seed, number, stream), batches do not depend on the number of
worker processes, a resumed run sees exactly the batches it would have seen, and two methods
with one seed see the same labeled patches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import (
    Convert2DTo3DTransform,
    Convert3DTo2DTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_semisup.data.crops import has_labels, unlabeled_part
from nnunet_semisup.data.labeled_views import LabeledViews
from nnunet_semisup.data.valid import MarkEmptyVoxels
from nnunet_semisup.data.workers import prepare_worker

Batch = dict[str, Any]

LABELED, UNLABELED, VALIDATION = 0, 1, 2
"""Numbers of the streams, part of each batch's seed."""

SPATIAL = (
    Convert3DTo2DTransform,
    SpatialTransform,
    Convert2DTo3DTransform,
    MirrorTransform,
    MaskImageTransform,
)


def weak_transforms(training: ComposeTransforms) -> ComposeTransforms:
    """Return the spatial part of nnU-Net's training augmentation: rotation, scaling, mirroring.

    None of it takes out the marks that make ``valid`` (:mod:`nnunet_semisup.data.valid`).

    Args:
        training: what ``nnUNetTrainer.get_training_transforms`` returned.
    """
    kept = [t for t in training.transforms if isinstance(t, SPATIAL)]
    if any(isinstance(t, MaskImageTransform) for t in kept):
        kept.insert(0, MarkEmptyVoxels())
    return ComposeTransforms(kept)


def without_timed_choices(transforms: ComposeTransforms) -> ComposeTransforms:
    """Return the same augmentation with one implementation of the blur, not the faster of two.

    nnU-Net times two implementations in each worker and keeps the winner; they differ in the last
    bits, so a resumed run would depend on how busy the machine was.
    """
    for transform in transforms.transforms:
        inner = transform.transform if isinstance(transform, RandomTransform) else transform
        if isinstance(inner, GaussianBlurTransform):
            inner.benchmark = False
    return transforms


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed python's, numpy's and torch's CPU generators from ``key``; restore them afterwards."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    words = np.random.SeedSequence([k % 2**32 for k in key]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.random.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


class NumberedLoader:
    """Iterate over batches ``first``, ``first + 1``, ...; a worker takes every n-th of them.

    Args:
        labeled: nnU-Net's loader of the labeled (or validation) patches.
        unlabeled: loader of the unlabeled patches, or ``None``.
        seed: of the run; ranks of a distributed run differ in it.
        stream: number of the labeled stream, :data:`LABELED` or :data:`VALIDATION`.
        first: number of the first batch.
        workers: number of processes that share the iteration.
        views: what is made beside nnU-Net's view of the labeled patches, or ``None``; its
            transforms are among the loader's (:meth:`LabeledViews.added_to`).
    """

    def __init__(
        self,
        labeled: nnUNetDataLoader,
        unlabeled: nnUNetDataLoader | None,
        seed: int,
        stream: int,
        first: int,
        workers: int,
        views: LabeledViews | None = None,
    ) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.seed = seed
        self.stream = stream
        self.next_number = first
        self.step = max(1, workers)
        self.views = views

    def set_thread_id(self, thread_id: int) -> None:
        """Prepare a worker, in which this is called once before the first batch."""
        prepare_worker()
        self.next_number += thread_id

    def __iter__(self) -> NumberedLoader:
        return self

    def __next__(self) -> Batch:
        number = self.next_number
        self.next_number += self.step
        with seeded(self.seed, number, self.stream):
            batch: Batch = self.labeled.generate_train_batch()
        if self.views is not None:
            batch.update(self.views.take())
        if self.unlabeled is not None:
            with seeded(self.seed, number, UNLABELED):
                drawn = self.unlabeled.generate_train_batch()
            labeled = has_labels(self.unlabeled)
            batch |= unlabeled_part(drawn, labeled) if "data" in drawn else {"unlabeled": drawn}
        return batch


Finish = Callable[[Batch], Batch]
"""What the training process makes of a batch that a worker sent."""


class _Alone(SingleThreadedAugmenter):
    """Make batches in this process."""

    finish: Finish = staticmethod(lambda batch: batch)

    def __next__(self) -> Batch:
        return self.finish(super().__next__())


class _Workers(MultiThreadedAugmenter):
    """Make batches in processes of their own."""

    finish: Finish = staticmethod(lambda batch: batch)

    def __next__(self) -> Batch:
        return self.finish(super().__next__())


def augmenter(
    loader: NumberedLoader, workers: int, pin_memory: bool, finish: Finish | None = None
) -> MultiThreadedAugmenter | SingleThreadedAugmenter:
    """Run ``loader`` in ``workers`` processes (0: in this one), batches in order.

    Args:
        loader: makes the batches.
        workers: number of processes.
        pin_memory: whether their tensors are to be in memory that a GPU reads.
        finish: what this process makes of a batch.
    """
    if workers == 0:
        batches: Any = _Alone(loader, None)
    else:
        batches = _Workers(
            loader,
            None,
            num_processes=workers,
            num_cached_per_queue=1,
            pin_memory=pin_memory,
            wait_time=0.002,
        )
    if finish is not None:
        batches.finish = finish
    return batches
