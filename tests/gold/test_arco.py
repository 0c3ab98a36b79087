"""Losses of representations against numbers of ARCO's released code.

Its samplers are biased and its memory of negatives stays all but empty; here both are replaced by a
fixed rule, and what is compared is what the losses make of the voxels chosen.
"""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.losses.contrast import class_contrast, class_means, neighbour_distance
from nnunet_semisup.losses.targets import PseudoLabel, weighted_by_image
from nnunet_semisup.networks.class_memory import ClassMemory
from tests.gold.numbers import close, tensor


@pytest.fixture
def case(gold):
    return gold("arco_a")


def voxels(maps):
    """Return ``(B * voxels, D)`` in raster order over the batch."""
    return maps.movedim(1, -1).flatten(0, -2)


def each_by_itself(anchors, positives, negatives, temperature):
    """Return the mean of the contrast of anchors that each have a positive and negatives.

    Args:
        anchors, positives: ``(Q, D)``.
        negatives: ``(Q, M, D)``.
        temperature: of the softmax.
    """
    one = torch.ones(len(anchors), 1, dtype=torch.bool)
    filled = one.expand(-1, negatives.shape[1])
    return class_contrast(
        anchors[:, None], one, positives, one[:, 0], negatives, filled, temperature
    )


def test_contrast_of_classes(case):
    maps = tensor(case["rep"]).requires_grad_()
    labels = torch.from_numpy(case["labels"])
    usable = torch.from_numpy(case["anchor_mask"]).bool()
    classes = torch.stack([(labels == number) & usable for number in range(2)], 1)
    means, known = class_means(tensor(case["rep_teacher"]), classes)
    assert known.all()
    queries, negatives = int(case["num_queries"]), int(case["num_negatives"])

    def taken(rows, count):
        numbers = torch.arange(count) * int(case["sampler_mul"]) + int(case["sampler_add"])
        return rows[numbers % len(rows)]

    losses = []
    for number in range(2):
        likely = tensor(case["prob_teacher"])[:, number] > float(case["prob_threshold"])
        anchors = taken(voxels(maps)[(classes[:, number] & likely).flatten()], queries)
        others = taken(tensor(case[f"bank_{number}"]), queries * negatives)
        others = others.reshape(queries, negatives, -1)
        positives = means[number].expand(queries, -1)
        losses.append(each_by_itself(anchors, positives, others, float(case["temperature"])))
    loss = torch.stack(losses).mean()
    loss.backward()
    close(loss, case["contrast_loss"], 1e-5)
    close(maps.grad, case["grad_rep"], 1e-6)


def test_contrast_with_shared_negatives(case):
    query = tensor(case["nce_query"]).requires_grad_()
    negatives = tensor(case["nce_negatives"]).expand(len(query), -1, -1)
    loss = each_by_itself(query, tensor(case["nce_positive"]), negatives, 0.5)
    loss.backward()
    close(loss, case["nce_loss_tau05"], 1e-6)
    close(query.grad, case["nce_grad_query"], 1e-6)


def test_contrast_with_the_other_positives_as_negatives(case):
    positives = tensor(case["nce_positive"])
    number = len(positives)
    others = torch.stack([positives[torch.arange(number) != i] for i in range(number)])
    loss = each_by_itself(tensor(case["nce_query"]), positives, others, 0.1)
    close(loss, case["nce_loss_implicit_tau01"], 1e-5)


def test_nearest_neighbours(case):
    """The released loss looks for the student's neighbours and measures the teacher's distance."""
    teacher, student = (
        tensor(case[f"nn_rep_{name}"]).flatten(1) for name in ("teacher", "student")
    )
    pool = tensor(case["nn_pool"])
    there, weights = torch.ones(len(pool), dtype=torch.bool), torch.ones(len(student))
    number = int(case["nn_topk"])
    loss = neighbour_distance(teacher, student, pool, there, weights, number)
    close(loss, case["nn_loss"], 1e-6)


def test_pseudo_labels_count_by_their_images_confidence(case):
    """The released share counts confident voxels that are ignored, too."""
    logits = tensor(case["unsup_logits"]).requires_grad_()
    target = torch.from_numpy(case["unsup_target"])[:, None]
    sure = tensor(case["unsup_conf"])[:, None] >= float(case["unsup_threshold"])
    valid = target >= 0
    label = weighted_by_image(PseudoLabel(target.clamp_min(0), sure.float()), valid)
    loss = weighted_cross_entropy(logits, label, False, among=valid)
    loss.backward()
    close(loss, case["unsup_loss"], 1e-6)
    close(logits.grad, case["unsup_grad"], 1e-6)


def test_first_in_first_out(case):
    """The released queue has the oldest row first, ours the newest."""
    memory = ClassMemory(1, int(case["fifo_size"]), 3)
    for rows in (torch.arange(5.0), torch.arange(10.0, 14.0)):
        newest_first = rows.flip(0)[None, :, None].expand(-1, -1, 3)
        memory.put(newest_first, torch.ones(1, len(rows), dtype=torch.bool))
    rows, filled = memory.per_class()
    assert filled.all()
    close(rows[0].flip(0), case["fifo_result"], 0)
