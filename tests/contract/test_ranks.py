"""Two processes that share a batch have the losses and gradients of one that has all of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.run.run_training import find_free_network_port
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.cli._hyperparameters import hyperparameters
from nnunet_semisup.registry import Method, find_method
from nnunet_semisup.training import batches
from nnunet_semisup.training.torchrun import processes_connected
from tests.contract.conftest import Builder, fitting, one_of_each
from tests.contract.course import SETTINGS, start_in_second_epoch

RANKS = 2
KIND = "labels2d"
CHANCE = ("cutmix_probability", "dropout")
"""Settings that are 0 here, so that all processes have the same numbers."""
COMPARED = one_of_each("compute_losses", "train_step", "disagreement")
NOT_ALONE = {
    "nnUNetTrainerABD": {"displaced_1", "displaced_2"},  # Patches exchange parts.
    "nnUNetTrainerARCO": {"contrast_labeled", "contrast_unlabeled"},  # Voxels are drawn.
    "nnUNetTrainerBCP": {"mixed_in", "mixed_out"},  # Patches exchange parts.
    "nnUNetTrainerMATCH": {"consistency_intra", "consistency_temporal"},  # The first patch's.
    "nnUNetTrainerSSNet": {"agreement_labeled", "consistency_classes", "consistency"},  # Noise.
    "nnUNetTrainerSemiSup": {"mixed"},  # Patches exchange parts.
    "nnUNetTrainerUniMatch": {"consistency_1", "consistency_2"},  # Features are drawn.
    "nnUNetTrainerVCLIPSeg": {"similarity"},  # Of the batch's mean features.
    "nnUNetTrainerVQSeg": {  # Of the batch's mean codes, which are drawn for the consistency.
        "usage_labeled",
        "usage_unlabeled",
        "consistency",
    },
}
"""Terms that are no mean over patches, each seen alone: every process has its own."""
DRAWN = ("nnUNetTrainerGraphSeg",)
"""Methods whose network draws noise."""


@contextmanager
def without_chance() -> Iterator[None]:
    """Let strong and noisy views be the same function of the images in all processes, inside."""
    with pytest.MonkeyPatch.context() as patch:
        for view in ("strong_view", "noisy_view"):
            patch.setattr(batches, view, lambda image, *_: image.tanh())
        yield


def built(build: Builder, method: Method, patches: int) -> Any:
    """Return a trainer in its second epoch, with as many unlabeled patches as said."""
    known = {one.name for one in hyperparameters(method)}
    settings = {name: 0 for name in CHANCE if name in known}
    if method.uses_unlabeled:
        settings["unlabeled_batch_size"] = patches
    trainer = build(method, KIND, start=False, **SETTINGS, **settings)
    start_in_second_epoch(trainer)
    return trainer


def terms_of(trainer: Any, batch: dict[str, Any]) -> dict[str, float]:
    """Return the terms of a step, and the norm of their gradient."""
    torch.manual_seed(0)
    if "unlabeled" not in batch:
        terms = {"loss": float(trainer.train_step(batch)["loss"])}
    else:
        terms = {}
        for group in trainer.compute_losses(*trainer.to_device(batch)):
            sum(term for name, term in group.items() if name[0] != "_").backward()
            terms |= {n: float(t.detach()) for n, t in group.items() if n[0] != "_"}
        trainer.after_backward()
    gradients = [p.grad.norm() for p in trainer.network.parameters() if p.grad is not None]
    return {**terms, "gradient": float(torch.stack(gradients).norm())}


def part_of(value: Any, rank: int) -> Any:
    """Return the patch of a batch that a process has."""
    if isinstance(value, list) and isinstance(value[0], torch.Tensor):
        return [part_of(one, rank) for one in value]
    return value[rank : rank + 1]


def one_of_two(rank: int, folder: Path, out: Path, port: int, names: list[str]) -> None:
    """Write the terms of a process's part of each method's batch."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(RANKS))
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    build = Builder(lambda kind: folder, out / "ranks", patch, itertools.count())
    found = {}
    with processes_connected(torch.device("cpu")), without_chance():
        for name in names:
            trainer = built(build, find_method(name), 1)
            assert isinstance(trainer.network, DistributedDataParallel)
            batch = torch.load(out / f"{name}.pt", weights_only=False)
            found[name] = terms_of(trainer, {k: part_of(v, rank) for k, v in batch.items()})
    torch.save(found, out / f"{rank}.pt")


@pytest.mark.usefixtures("with_clip")
def test_losses_and_gradients_are_those_of_one_process(
    datasets: Callable[[str], Path], build: Builder, tmp_path: Path
) -> None:
    """Padding in one patch alone: the mean of both processes' means would be another one."""
    methods = [method for method in COMPARED if fitting(method, KIND) == KIND]
    alone = {}
    with without_chance():
        for method in methods:
            trainer = built(build, method, RANKS)
            batch = next(trainer.dataloader_train)
            if method.uses_unlabeled:
                batch["unlabeled_valid"][0, :, :5] = False
            torch.save(batch, tmp_path / f"{method.trainer}.pt")
            alone[method.trainer] = terms_of(trainer, batch)
    arguments = (datasets(KIND), tmp_path, find_free_network_port(), list(alone))
    multiprocessing.spawn(one_of_two, arguments, nprocs=RANKS)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]
    wrong = {}
    for name in set(alone) - set(DRAWN):
        left_out = NOT_ALONE.get(name, set())
        assert left_out <= alone[name].keys()
        together = {term: sum(part[name][term] for part in parts) / RANKS for term in alone[name]}
        for term in alone[name].keys() - left_out - ({"gradient"} if left_out else set()):
            if together[term] != pytest.approx(alone[name][term], rel=1e-3, abs=1e-7):
                wrong[name, term] = (alone[name][term], together[term])
    assert wrong == {}
    acting = {name for name, terms in alone.items() if terms.get("consistency", 0.0) > 0}
    assert {"nnUNetTrainerMeanTeacher", "nnUNetTrainerPseudoLabel", "nnUNetTrainerDTC"} <= acting
