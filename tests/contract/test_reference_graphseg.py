"""GraphSeg's terms from the equations of its page: shifted arrays, edges looked at one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates, maximum_filter
from scipy.special import digamma, logsumexp

from nnunet_semisup.trainers import nnUNetTrainerGraphSeg
from tests.contract.steps import ready, terms_of

KINDS = ("labels2d", "regions2d", "ignore2d")


def curved(maps):
    """Return each voxel minus the mean of its neighbours, of maps ``(..., h, w)``."""
    wide = np.pad(maps, [(0, 0)] * (maps.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    moved = [np.roll(wide, by, axis) for by in (1, -1) for axis in (-1, -2)]
    return (wide - sum(moved) / 4)[..., 1:-1, 1:-1]


def bound(image, output, z, valid):
    """Return the negative evidence bound of a pass, in float64."""
    (x, log_x), (m, log_m) = (
        (part.mean.double().numpy(), part.log_variance.double().numpy())
        for part in output.parts[:2]
    )
    y, var_x, var_m, classes = image.double().numpy(), np.exp(log_x), np.exp(log_m), z.shape[1]
    counted = ~maximum_filter(~valid.numpy(), (1, 1, 3, 3), mode="constant", cval=0)
    rho = 5 / ((y - x - m) ** 2 + var_x + var_m + 0.02)
    upsilon = (4 + classes) / (curved(x) ** 2 + 2 * var_x + 0.02)
    boundary = np.zeros_like(y[:, :1])
    for image_number, where in enumerate(counted[:, 0]):
        for k in range(classes):
            bent = curved(z[image_number, k]) ** 2
            omega = 5 / (z[image_number, k][where].mean() * bent + 0.02)
            second = 2 + (omega * bent)[where].sum() / 2
            pi = digamma(2 + where.sum() / 2 + second) - digamma(second)
            boundary[image_number, 0] += pi * omega * bent
    voxels = rho * (y - x - m) ** 2
    voxels += upsilon * (curved(x) ** 2 + 2 * var_x) + rho * var_x - log_x
    voxels += m**2 + var_m + rho * var_m - log_m
    everywhere = np.broadcast_to(counted, y.shape)
    total = voxels[everywhere].mean() + boundary[counted].mean()
    return 10 * total / (5 / 0.02)


def value_at(grid, x, y):
    """Return the linearly interpolated value of a map in the frame of its patch, 0 outside."""
    height, width = grid.shape
    place = [[((y + 1) * height - 1) / 2], [((x + 1) * width - 1) / 2]]
    return float(map_coordinates(grid, place, order=1, mode="grid-constant")[0])


def moved(affine, free, x, y):
    """Return where a map takes a point."""
    last = free.shape[-1] - 1
    place = [[(y + 1) / 2 * last], [(x + 1) / 2 * last]]
    by = [float(map_coordinates(one, place, order=1, mode="nearest")[0]) for one in free]
    return affine[:, :2] @ (np.array([x, y]) + by) + affine[:, 2]


def edges_energy(grid, graph, affine, free, voxel):
    """Return the mean of 1 - (p (1 - q))^2 over a graph's edges."""
    size = np.array(grid.shape[::-1])
    energies = []
    for *ends, half, there in graph:
        if not there:
            continue
        start, end = moved(affine, free, *ends[:2]), moved(affine, free, *ends[2:])
        along = (end - start) * size / 2
        across = np.array([-along[1], along[0]])
        if np.abs(along).max() < 1e-6:  # A node by itself has no direction.
            across = np.ones(2)
        across = across / np.linalg.norm(across)
        across = across * (half / voxel + 2) * 2 / size
        points = [start + share * (end - start) for share in (1 / 6, 1 / 2, 5 / 6)]
        p = np.mean([value_at(grid, *point) for point in points])
        q = np.mean([value_at(grid, *(point + s * across)) for point in points for s in (-1, 1)])
        energies.append(1 - (p * (1 - q)) ** 2)
    return np.mean(energies)


def laid_over(trainer, features, probs, valid, atlas):
    """Return fine and coarse energy and the bending, for graphs ``[class][number]``."""
    fine, coarse, bent = [], [], []
    for number, graphs in enumerate(atlas):
        rows, _ = trainer.prior.atlas.per_class()
        affine, free = trainer.prior.aligner(features, rows[number].unflatten(1, (-1, 6)))
        affine, free = affine.double().numpy(), free.double().numpy()
        bent.append(
            sum(
                factor * np.mean(np.diff(np.diff(free, axis=one), axis=other) ** 2)
                for one, other, factor in ((-1, -1, 1), (-2, -2, 1), (-1, -2, 2))
            )
        )
        for image in range(len(probs)):
            grid = (probs[image, number] * valid[image, 0]).double().numpy()
            blocks = grid.reshape(grid.shape[0] // 4, 4, -1, 4).max((1, 3))
            share = valid[image].double().mean().item()
            for values, given, voxel in ((fine, grid, 1), (coarse, blocks, 4)):
                found = np.array(
                    [
                        edges_energy(given, graph, affine[image, g], free[image, g], voxel)
                        for g, graph in enumerate(graphs)
                    ]
                )
                least = -0.05 * (logsumexp(-found / 0.05) - np.log(len(found)))
                values.append(share * least)
    return np.mean(fine), np.mean(coarse), np.mean(bent)


def with_edges(*batches):
    """Return the graphs of each class that have edges, as the atlas orders them."""
    classes = range(batches[0].shape[1])
    return [
        [graph for batch in batches for graph in batch[:, c].double().numpy() if graph[:, 5].any()]
        for c in classes
    ]


def foreground(trainer, logits):
    return logits.sigmoid() if trainer.regions else logits.softmax(1)[:, 1:]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_terms(build, kind):
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerGraphSeg, kind, rampup_length=0.0)
    torch.manual_seed(1)
    network, aligner = trainer.training_network, trainer.prior.aligner
    for last in (network.predictor.structure.layers[-1], network.noise.layers[-1], aligner.free):
        last.weight.normal_(std=0.1)
    aligner.affine.weight.normal_(std=0.5)
    earlier = trainer.to_device(next(trainer.dataloader_train))[0].maps["graphs"]
    trainer.prior.remember(earlier)
    atlas = with_edges(earlier)
    assert all(atlas)

    torch.manual_seed(0)
    seen = [network(image) for image in (labeled.image, unlabeled.image)]
    logits = [one.logits[0] for one in seen]
    ignore, full = trainer.label_manager.ignore_label, labeled.target[0]
    known = torch.ones_like(full[:, :1], dtype=torch.bool) if ignore is None else full != ignore
    truth = (
        full if trainer.regions else torch.cat([full == number for number in (1, 2)], 1).double()
    )
    labels = laid_over(trainer, seen[0].parts.features, truth, known, atlas)

    terms = terms_of(trainer, labeled, unlabeled)  # The atlas gets the batch's own graphs.
    atlas = with_edges(labeled.maps["graphs"], earlier)
    probs = foreground(trainer, logits[1])
    own = laid_over(trainer, seen[1].parts.features, probs, unlabeled.valid, atlas)
    z = [foreground(trainer, one).double() for one in logits]
    rest = [1 - one.amax(1, keepdim=True) if trainer.regions else 1 - one.sum(1, True) for one in z]
    z = [torch.cat([r, one], 1) for r, one in zip(rest, z, strict=True)]
    z = [(one / one.sum(1, keepdim=True)).numpy() for one in z]
    everywhere = torch.ones_like(labeled.image[:, :1], dtype=torch.bool)
    expected = {
        "supervised": float(trainer.loss(seen[0].logits, labeled.target)),
        "decomposition_labeled": bound(labeled.image, seen[0], z[0], everywhere),
        "alignment_labeled": labels[0] + labels[1] + 10 * labels[2],
        "consistency": 0.1 * own[0],
        "alignment_unlabeled": 0.1 * (own[1] + 10 * own[2]),
        "decomposition_unlabeled": 0.1 * bound(unlabeled.image, seen[1], z[1], unlabeled.valid),
    }
    assert 0 < own[0] < 1
    assert terms == pytest.approx(expected, rel=2e-4)


def test_the_atlas_teaches_maps_alone_on_labeled_patches(build):
    """The network sees of a labeled patch its annotation, not how well a graph fits that."""
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerGraphSeg, "labels2d")
    trainer.prior.remember(labeled.maps["graphs"])
    groups = list(trainer.compute_losses(labeled, unlabeled))
    weights = [*trainer.training_network.parameters()]
    maps = [trainer.prior.aligner.affine.bias]
    for term, reaches in (
        (groups[0]["alignment_labeled"], False),
        (groups[1]["consistency"], True),
    ):
        found = torch.autograd.grad(
            term, [*weights, *maps], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        assert any(one.any() for one in found[:-1]) == reaches
        assert found[-1].any()


def test_labels_alone_without_unlabeled_weight(build):
    trainer, labeled, unlabeled = ready(
        build, nnUNetTrainerGraphSeg, "labels2d", unlabeled_weight=0.0
    )
    assert set(terms_of(trainer, labeled, unlabeled)) == {"supervised", "decomposition_labeled"}
    assert not trainer.prior.atlas.filled.any()
