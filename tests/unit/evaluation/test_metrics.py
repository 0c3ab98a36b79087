"""Definitions of the metrics: values by hand, properties, and a brute-force reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from nnunet_semisup.evaluation import metrics
from nnunet_semisup.evaluation.metrics import compute_metrics
from nnunet_semisup.evaluation.names import HIGHER_IS_BETTER, METRICS

DISTANCES = ("HD95", "ASD", "ASD_directed")


@st.composite
def mask_pairs(draw):
    """Two masks of one shape, 2D or 3D, and a spacing."""
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6))
    spacing = draw(st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 2.5, 7.0]) for _ in shape]))
    return draw(arrays(bool, shape)), draw(arrays(bool, shape)), spacing


def brute_force_surface(mask, spacing):
    """Surface voxels, by looking at every neighbor of every voxel, in the unit of the spacing."""
    axes = [a for a in range(mask.ndim) if mask.shape[a] > 1]
    points = []
    for index in map(tuple, np.argwhere(mask)):
        for axis in axes:
            for step in (-1, 1):
                neighbor = list(index)
                neighbor[axis] += step
                outside = not 0 <= neighbor[axis] < mask.shape[axis]
                if outside or not mask[tuple(neighbor)]:
                    points.append(tuple(i * s for i, s in zip(index, spacing, strict=True)))
    if not axes:
        points.append((0.0,) * mask.ndim)
    return sorted(set(points))


def brute_force_distances(prediction, reference, spacing):
    first = brute_force_surface(prediction, spacing)
    second = brute_force_surface(reference, spacing)
    table = [[math.dist(p, q) for q in second] for p in first]
    return [min(row) for row in table], [min(column) for column in zip(*table, strict=True)]


def distances_by_transform(prediction, reference, spacing):
    """Distances by scipy's erosion and distance transform of whole volumes."""
    surfaces = [mask & ~binary_erosion(mask, border_value=0) for mask in (prediction, reference)]
    maps = [distance_transform_edt(~surface, spacing) for surface in surfaces]
    return maps[1][surfaces[0]], maps[0][surfaces[1]]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.625, 0.7, 1.25), (5.0, 0.4, 0.4)])
def test_near_and_far_parts_agree_with_a_distance_transform(spacing):
    noise = [gaussian_filter(np.random.default_rng(n).normal(size=(24, 40, 44)), 3) for n in (0, 1)]
    reference = noise[0] > 0.03
    prediction = reference & (noise[1] > -0.02)
    prediction[:, 25:] = False
    reference[:, :3] = False
    found = metrics.surface_distances(prediction, reference, spacing)
    expected = distances_by_transform(prediction, reference, spacing)
    assert max(map(np.max, expected)) > 10 * min(spacing)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
def test_masks_are_not_written_to_and_may_lie_in_any_order(order):
    masks = np.random.default_rng(0).random((2, 7, 8, 9)) < 0.4
    one, other = (np.asarray(mask, order=order) for mask in masks)
    one.setflags(write=False)
    expected = compute_metrics(*masks, (1.0, 2.0, 3.0))
    assert compute_metrics(one, other[::1], (1.0, 2.0, 3.0)) == expected


def percentile(values, fraction):
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


@settings(max_examples=80, deadline=None)
@given(mask_pairs())
def test_agrees_with_brute_force(pair):
    prediction, reference, spacing = pair
    assume(prediction.any() and reference.any())
    there, back = brute_force_distances(prediction, reference, spacing)
    values = compute_metrics(prediction, reference, spacing).values
    assert values["HD95"] == pytest.approx(percentile(there + back, 0.95), abs=1e-9)
    assert values["ASD"] == pytest.approx(sum(there + back) / len(there + back), abs=1e-9)
    assert values["ASD_directed"] == pytest.approx(sum(there) / len(there), abs=1e-9)
    p = {tuple(i) for i in np.argwhere(prediction)}
    r = {tuple(i) for i in np.argwhere(reference)}
    assert values["Dice"] == pytest.approx(2 * len(p & r) / (len(p) + len(r)))
    assert values["Jaccard"] == pytest.approx(len(p & r) / len(p | r))


@settings(max_examples=50, deadline=None)
@given(mask_pairs())
def test_symmetric_except_the_directed_distance(pair):
    prediction, reference, spacing = pair
    forward = compute_metrics(prediction, reference, spacing).values
    backward = compute_metrics(reference, prediction, spacing).values
    for metric in ("Dice", "Jaccard", "HD95", "ASD"):
        assert forward[metric] == pytest.approx(backward[metric], nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(mask_pairs())
def test_identical_masks_are_perfect(pair):
    mask, _, spacing = pair
    assume(mask.any())
    values = compute_metrics(mask, mask.copy(), spacing).values
    assert values == {"Dice": 1.0, "Jaccard": 1.0, "HD95": 0.0, "ASD": 0.0, "ASD_directed": 0.0}


@settings(max_examples=80, deadline=None)
@given(mask_pairs())
def test_an_empty_prediction_is_never_better_than_another(pair):
    prediction, reference, spacing = pair
    assume(prediction.any() and reference.any())
    other = compute_metrics(prediction, reference, spacing).values
    empty = compute_metrics(np.zeros_like(prediction), reference, spacing).values
    for metric in METRICS:
        assert math.isfinite(empty[metric])
        if HIGHER_IS_BETTER[metric]:
            assert empty[metric] <= other[metric]
        else:
            assert empty[metric] > other[metric]


@settings(max_examples=40, deadline=None)
@given(mask_pairs())
def test_jaccard_follows_from_dice_and_single_functions_agree(pair):
    prediction, reference, spacing = pair
    values = compute_metrics(prediction, reference, spacing).values
    dice = metrics.dice(prediction, reference)
    assert dice == pytest.approx(values["Dice"], nan_ok=True)
    assert metrics.jaccard(prediction, reference) == pytest.approx(dice / (2 - dice), nan_ok=True)
    assert metrics.hd95(prediction, reference, spacing) == pytest.approx(
        values["HD95"], nan_ok=True
    )
    assert metrics.asd(prediction, reference, spacing) == pytest.approx(values["ASD"], nan_ok=True)


@pytest.mark.parametrize(("axis", "expected"), [(0, 10.0), (1, 1.0), (2, 0.5)])
def test_shifted_single_voxel_measures_the_spacing_of_its_axis(axis, expected):
    reference = np.zeros((6, 6, 6), dtype=bool)
    reference[2, 2, 2] = True
    values = compute_metrics(np.roll(reference, 2, axis), reference, (5.0, 0.5, 0.25)).values
    assert values["Dice"] == values["Jaccard"] == 0.0
    assert [values[m] for m in DISTANCES] == pytest.approx([expected] * 3)


def test_shifted_cube_by_hand():
    reference = np.zeros((8, 8, 8), dtype=bool)
    reference[2:5, 2:5, 2:5] = True
    prediction = np.roll(reference, 1, axis=0)
    values = compute_metrics(prediction, reference, (3.0, 1.0, 1.0)).values
    # 3^3 voxels, 26 on the surface. Shifted by one along axis 0, 18 voxels overlap. Of the surface
    # voxels of one cube 9 lie 3 mm outside, 8 + 8 on the other's surface and 1, the middle of a
    # face, coincides with the other's center, 1 mm from its surface.
    assert values["Dice"] == pytest.approx(18 * 2 / 54)
    assert values["Jaccard"] == pytest.approx(18 / 36)
    assert values["ASD"] == values["ASD_directed"] == pytest.approx((9 * 3 + 1) / 26)
    assert values["HD95"] == pytest.approx(3.0)


def test_percentile_is_taken_of_both_directions_together():
    reference = np.zeros((1, 41), dtype=bool)
    reference[0, 0] = True
    prediction = reference.copy()
    prediction[0, 10:30:2] = True
    # Directed distances: 0 and 10, 12, ..., 28 one way, 0 the other way.
    pooled = [0, 0, *range(10, 30, 2)]
    values = compute_metrics(prediction, reference, (1.0, 1.0)).values
    assert values["HD95"] == pytest.approx(percentile(pooled, 0.95))
    assert values["ASD"] == pytest.approx(sum(pooled) / 12)
    assert values["ASD_directed"] == pytest.approx(sum(pooled) / 11)


@pytest.mark.parametrize("shape", [(5, 7), (4, 5, 7)])
def test_rule_for_empty_masks(shape):
    spacing = (3.0, 2.0, 1.0)[-len(shape) :]
    empty, full = np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)
    both = compute_metrics(empty, empty, spacing)
    assert both.status == "both_empty"
    assert all(math.isnan(value) for value in both.values.values())
    diagonal = math.dist((0,) * len(shape), [n * s for n, s in zip(shape, spacing, strict=True)])
    missed, invented = compute_metrics(empty, full, spacing), compute_metrics(full, empty, spacing)
    assert (missed.status, invented.status) == ("prediction_empty", "reference_empty")
    for values in (missed.values, invented.values):
        assert values["Dice"] == values["Jaccard"] == 0.0
        assert [values[m] for m in DISTANCES] == pytest.approx([diagonal] * 3)


def test_single_slice_volume_equals_its_2d_image():
    rng = np.random.default_rng(0)
    prediction, reference = rng.random((2, 9, 9)) < 0.4
    flat = compute_metrics(prediction, reference, (0.5, 0.5))
    volume = compute_metrics(prediction[None], reference[None], (999.0, 0.5, 0.5))
    assert flat.values == volume.values
    empty = np.zeros((1, 9, 9), dtype=bool)
    diagonal = compute_metrics(empty, reference[None], (999.0, 0.5, 0.5)).values["HD95"]
    assert diagonal == pytest.approx(math.hypot(4.5, 4.5))


@pytest.mark.parametrize(
    ("prediction", "reference", "spacing"),
    [
        (np.ones((2, 2), bool), np.ones((2, 3), bool), (1.0, 1.0)),
        (np.ones((2, 2), int), np.ones((2, 2), bool), (1.0, 1.0)),
        (np.ones((2, 2), bool), np.ones((2, 2), bool), (1.0,)),
        (np.ones((2, 2), bool), np.ones((2, 2), bool), (1.0, 0.0)),
        (np.ones((2, 2), bool), np.ones((2, 2), bool), (1.0, math.nan)),
    ],
)
def test_wrong_arguments_are_refused(prediction, reference, spacing):
    with pytest.raises(ValueError, match="expected"):
        compute_metrics(prediction, reference, spacing)


def test_surface_distances_refuse_empty_masks():
    with pytest.raises(ValueError, match="non-empty"):
        metrics.surface_distances(np.zeros((2, 2), bool), np.ones((2, 2), bool), (1.0, 1.0))
