"""Losses of representations, by hand on a few points."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_semisup.losses.contrast import (
    cell_means,
    class_contrast,
    class_means,
    neighbour_distance,
    relational_divergence,
)

TRUE = torch.tensor([True])


def contrast(anchors, there, positives, known, negatives, filled, temperature=0.5):
    return class_contrast(anchors, there, positives, known, negatives, filled, temperature)


def test_infonce_on_three_points():
    """An anchor at cosine 0.6 from its class, 0 from one negative and -1 from another."""
    anchor = torch.tensor([[[2.0, 0.0]]])
    positive = torch.tensor([[3.0, 4.0]])
    negatives = torch.tensor([[[0.0, 5.0], [-1.0, 0.0], [9.0, 9.0]]])
    filled = torch.tensor([[True, True, False]])
    loss = contrast(anchor, TRUE[None], positive, TRUE, negatives, filled)
    own, *others = (math.exp(cosine / 0.5) for cosine in (0.6, 0.0, -1.0))
    assert float(loss) == pytest.approx(-math.log(own / (own + sum(others))))


def random_classes(seed=0):
    torch.manual_seed(seed)
    maps = torch.randn(3, 5, 4), torch.randn(3, 4), torch.randn(3, 6, 4)
    there, filled = torch.rand(3, 5) < 0.8, torch.rand(3, 6) < 0.8
    return [maps[0], there, maps[1], torch.ones(3, dtype=torch.bool), maps[2], filled]


@pytest.mark.parametrize("missing", [1, 3, 5], ids=["anchors", "positive", "negatives"])
def test_a_class_without_a_part_is_left_out_by_its_number(missing):
    given = random_classes()
    given[missing] = given[missing].clone()
    given[missing][1] = False
    left = [part[[0, 2]] for part in given]
    assert float(contrast(*given)) == pytest.approx(float(contrast(*left)))
    assert float(contrast(*given)) != pytest.approx(float(contrast(*random_classes())))


def test_without_any_class_it_is_0_and_so_is_its_gradient():
    given = [torch.zeros_like(part) for part in random_classes()]
    anchors = given[0].requires_grad_()
    loss = contrast(*given)
    loss.backward()
    assert float(loss.detach()) == 0
    assert (anchors.grad == 0).all()


def test_means_of_classes():
    torch.manual_seed(0)
    maps, classes = torch.randn(2, 3, 5, 4), torch.rand(2, 4, 5, 4) < 0.3
    classes[:, 2] = False
    means, known = class_means(maps, classes)
    assert known.tolist() == [True, True, False, True]
    for number in (0, 1, 3):
        rows = maps.movedim(1, -1)[classes[:, number]]
        torch.testing.assert_close(means[number], rows.mean(0))
    assert (means[2] == 0).all()


@pytest.mark.parametrize("spatial", [(8, 4), (8, 4, 4)])
def test_means_of_cells_leave_padding_out(spatial):
    torch.manual_seed(0)
    maps, valid = torch.randn(2, 3, *spatial), torch.rand(2, 1, *spatial) < 0.5
    valid[0, :, :4] = False
    rows, weights = cell_means(maps, valid, [2] * len(spatial))
    cells = 2 ** len(spatial)
    assert rows.shape == (2 * cells, 3)
    first_cell = tuple(slice(0, size // 2) for size in spatial)
    inside = valid[(1, 0, *first_cell)]
    expected = maps[(1, slice(None), *first_cell)][:, inside].mean(1)
    torch.testing.assert_close(rows[cells], expected)
    assert float(weights[cells]) == pytest.approx(float(inside.float().mean()))
    assert (weights[: cells // 2] == 0).all()
    coarse = torch.nn.functional.max_pool2d if len(spatial) == 2 else torch.nn.functional.max_pool3d
    assert torch.isfinite(cell_means(coarse(maps, 2), valid, [2] * len(spatial))[0]).all()


def test_relations_by_hand():
    """One row, two others: KL of (1/(1+e^-10), ...) from (1/(1+e^-0.2), ...)."""
    others = torch.tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 5.0]])
    there = torch.tensor([True, True, False])
    student, teacher = torch.tensor([[0.6, 0.8]]), torch.tensor([[0.6, 0.8]])
    loss = relational_divergence(student, teacher, others, there, torch.ones(1), 0.1, 0.02)

    def softmax(temperature):
        first, second = math.exp(0.6 / temperature), math.exp(0.8 / temperature)
        return first / (first + second), second / (first + second)

    asked, taught = softmax(0.1), softmax(0.02)
    expected = sum(t * math.log(t / a) for t, a in zip(taught, asked, strict=True))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_relations_are_equal_for_equal_rows_and_temperatures_and_teach_the_student_alone():
    torch.manual_seed(0)
    others, weights = torch.randn(9, 4), torch.rand(5)
    there = torch.arange(9) < 6
    student, teacher = torch.randn(2, 5, 4).unbind()
    same = relational_divergence(teacher, teacher, others, there, weights, 0.1, 0.1)
    assert float(same) == pytest.approx(0, abs=1e-6)
    student.requires_grad_()
    teacher.requires_grad_()
    loss = relational_divergence(student, teacher, others, there, weights, 0.1, 0.01)
    loss.backward()
    assert float(loss.detach()) > 0
    assert student.grad.any()
    assert teacher.grad is None


def test_neighbours_are_the_references_and_nearest_by_cosine():
    others = torch.tensor([[9.0, 1.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [1.0, 0.1]])
    there = torch.tensor([True, True, True, True, False])
    rows, reference = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    loss = neighbour_distance(rows, reference, others, there, torch.ones(1), 2)
    cosines = 1 / math.sqrt(82), 1 / math.sqrt(2)
    assert float(loss) == pytest.approx(2 - 2 * sum(cosines) / 2)
    few = neighbour_distance(rows, reference, others, torch.arange(5) == 1, torch.ones(1), 3)
    assert float(few) == pytest.approx(0, abs=1e-6), "the one there is, not those that are missing"


@pytest.mark.parametrize("nothing", ["others", "weights"])
def test_without_others_or_weights_they_are_0(nothing):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 4).unbind()
    student.requires_grad_()
    there = torch.full((9,), nothing != "others")
    weights = torch.full((5,), float(nothing != "weights"))
    others = torch.randn(9, 4) * there[:, None]
    first = relational_divergence(student, teacher, others, there, weights, 0.1, 0.01)
    second = neighbour_distance(student, teacher, others, there, weights, 3)
    (first + second).backward()
    assert (float(first.detach()), float(second.detach())) == (0, 0)
    assert torch.isfinite(student.grad).all()
    assert not student.grad.any()
