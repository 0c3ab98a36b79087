"""Features of classes that outlive a step."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.networks.class_memory import ClassMemory


def push(memory, *rows):
    """Push rows of (value, class, score); features are the value repeated."""
    values, classes, scores = zip(*rows, strict=True)
    features = torch.tensor(values)[:, None].repeat(1, memory.features.shape[-1])
    memory.push(features, torch.tensor(classes), torch.tensor(scores))


def held(memory):
    """Values in the memory, class by class."""
    rows, filled = memory.per_class()
    return [[float(v) for v in row[mask][:, 0]] for row, mask in zip(rows, filled, strict=True)]


def test_keeps_the_best_rows_of_each_class():
    memory = ClassMemory(3, 2, 4)
    assert held(memory) == [[], [], []]
    push(memory, (1.0, 0, 0.1), (2.0, 0, 0.9), (3.0, 0, 0.5), (4.0, 2, 0.2), (9.0, 7, 1.0))
    assert held(memory) == [[2.0, 3.0], [], [4.0]]
    assert memory.filled.tolist() == [2, 0, 1]


def test_new_rows_go_first_and_old_ones_fill_what_is_left():
    memory = ClassMemory(2, 3, 1)
    push(memory, (1.0, 0, 0.9), (2.0, 0, 0.8), (3.0, 0, 0.7), (4.0, 1, 0.5))
    push(memory, (5.0, 0, 0.1), (6.0, 0, 0.2))
    assert held(memory) == [[6.0, 5.0, 1.0], [4.0]]
    push(memory, (7.0, 1, 0.3))
    assert held(memory) == [[6.0, 5.0, 1.0], [7.0, 4.0]]


def test_first_rows_in_are_the_first_out():
    memory = ClassMemory(2, 4, 1)

    def put(first, second):
        rows = torch.tensor([first, second], dtype=torch.float)[..., None]
        memory.put(rows, rows[..., 0] > 0)

    put([2, 1], [5, 0])
    assert held(memory) == [[2, 1], [5]]
    put([4, 3], [0, 0])
    assert held(memory) == [[4, 3, 2, 1], [5]]
    put([6, 5], [0, 7])
    assert held(memory) == [[6, 5, 4, 3], [7, 5]]
    put(list(range(17, 11, -1)), [0] * 6)
    assert held(memory) == [[17, 16, 15, 14], [7, 5]]


@pytest.mark.parametrize("score", [float("-inf"), float("nan")])
def test_rows_without_a_score_are_not_taken(score):
    memory = ClassMemory(1, 4, 1)
    push(memory, (1.0, 0, score), (2.0, 0, 0.5), (3.0, -1, 1.0))
    assert held(memory) == [[2.0]]


def test_is_a_sorted_selection_on_random_rows():
    torch.manual_seed(0)
    memory = ClassMemory(4, 5, 3)
    features, classes, scores = torch.randn(60, 3), torch.randint(-1, 4, (60,)), torch.rand(60)
    memory.push(features.requires_grad_(), classes, scores)
    rows, filled = memory.per_class()
    assert filled.all()
    assert not rows.requires_grad
    for number in range(4):
        mine = classes == number
        best = scores[mine].argsort(descending=True)[:5]
        assert torch.equal(rows[number], features[mine][best].detach())


def test_travels_with_the_state_dict():
    memory = ClassMemory(2, 3, 1)
    push(memory, (1.0, 0, 0.9), (4.0, 1, 0.5))
    fresh = ClassMemory(2, 3, 1)
    fresh.load_state_dict(memory.state_dict())
    assert held(fresh) == held(memory) == [[1.0], [4.0]]


def test_a_push_does_not_disturb_a_backward_pass():
    memory = ClassMemory(1, 2, 1)
    push(memory, (1.0, 0, 0.9))
    weight = torch.ones(1, requires_grad=True)
    loss = (memory.per_class()[0] * weight).sum()
    push(memory, (5.0, 0, 0.9), (6.0, 0, 0.8))
    loss.backward()
    assert weight.grad.item() == 1.0


def test_half_precision_rows_are_stored_in_single():
    memory = ClassMemory(1, 2, 1)
    memory.push(torch.ones(1, 1).half(), torch.zeros(1, dtype=torch.long), torch.ones(1).half())
    assert memory.features.dtype == torch.float32
    assert held(memory) == [[1.0]]


def test_no_step_waits_for_the_device():
    """On the meta device no value can be read, so a push that looks at one would fail."""
    memory = ClassMemory(3, 4, 2).to("meta")
    for rows in (2, 50):
        with torch.device("meta"):
            memory.push(torch.ones(rows, 2), torch.ones(rows, dtype=torch.long), torch.ones(rows))
    assert memory.per_class()[0].shape == (3, 4, 2)
