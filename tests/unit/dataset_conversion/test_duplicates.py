import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.feature import match_template

from nnunet_semisup.dataset_conversion.checking import duplicates
from nnunet_semisup.dataset_conversion.checking.duplicates import (
    FACTOR,
    Pairs,
    _box_sum,
    _Searchable,
    confirm,
    screen,
    thumbnail,
)
from tests.unit.dataset_conversion.trees import texture
from tests.unit.dataset_conversion.trees_common import smooth
from tests.unit.dataset_conversion.trees_generic import WHAT, convert, made, scan, write


def test_correlation_equals_the_reference():
    rng = np.random.default_rng(0)
    image, other = rng.random((9, 12, 10)), rng.random((9, 12, 10))
    box, grid = (5, 6, 4), (10, 12, 12)
    first, second = _Searchable(image, box, grid), _Searchable(other, box, grid)
    inner = tuple(slice(s, s + b) for s, b in zip(first.start, box, strict=True))
    expected = match_template(other, image[inner])
    score, shift = second.best_match(first.template_spectrum)
    assert score == pytest.approx(expected.max(), abs=1e-5)
    assert shift == np.unravel_index(expected.argmax(), expected.shape)


def test_box_sum_equals_a_loop():
    image = np.random.default_rng(1).random((5, 6))
    expected = [[image[i : i + 2, j : j + 3].sum() for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(_box_sum(image, (2, 3)), expected)


@pytest.mark.parametrize("seed", range(4))
def test_crops_of_one_scan_are_found_whatever_their_grey_values(seed):
    rng = np.random.default_rng(seed)
    scan = texture(seed, (72, 64, 60)).astype(np.float32)
    low, high = rng.integers(0, 9, 3), rng.integers(0, 7, 3)
    crop = scan[tuple(slice(a, n - b) for a, b, n in zip(low, high, scan.shape, strict=True))]
    other = 0.4 * crop - 20 + rng.uniform(-1, 1, crop.shape)
    found = screen([thumbnail(scan), thumbnail(texture(99, scan.shape)), thumbnail(other)])
    pairs = {(c.first, c.second): c for c in found}
    assert (0, 2) in pairs
    assert confirm(scan, other, pairs[0, 2].offset) > 0.97


def test_different_scans_are_not_confirmed():
    scans = [texture(seed, (48, 40, 40)) for seed in range(12)]
    candidates = screen([thumbnail(s) for s in scans], threshold=-1)
    assert len(candidates) == 66
    assert max(confirm(scans[c.first], scans[c.second], c.offset) for c in candidates) < 0.7


def test_threads_find_the_same_in_the_same_order():
    thumbnails = [thumbnail(texture(seed, (30, 36, 30))) for seed in range(9)]
    expected = screen(thumbnails, threshold=-1)
    assert [(c.first, c.second) for c in expected] == list(combinations(range(9), 2))
    assert screen(thumbnails, threshold=-1, num_threads=4) == expected


def test_constant_or_tiny_images_are_nobody_s_copy():
    flat = np.zeros((30, 30, 30), np.uint8)
    assert screen([thumbnail(flat), thumbnail(flat)]) == []
    assert confirm(flat, flat, (0, 0, 0)) == 0
    assert screen([]) == screen([thumbnail(texture(0, (2, 3, 4)))]) == []
    assert confirm(texture(0, (30, 30, 30)), texture(0, (30, 30, 30)), (29, 0, 0)) == 0


def test_thumbnail_of_a_small_axis_is_one_window():
    assert thumbnail(texture(0, (3, 20, 60))).shape == (1, 2, 9)
    assert thumbnail(np.full((12, 12, 12), 5, np.uint8)) == pytest.approx(5)


def test_corner_of_a_scan_is_found_from_either_side():
    scan = texture(3, (84, 84, 84))
    corner = scan[:48, :48, :48]
    for first, second in ((scan, corner), (corner, scan)):
        (found,) = screen([thumbnail(first), thumbnail(second)])
        assert confirm(first, second, found.offset) == pytest.approx(1, abs=0.01)


def test_large_thumbnails_are_halved_and_the_copy_is_found_still():
    rng = np.random.default_rng(0)
    wide = gaussian_filter(rng.standard_normal((330, 24, 330)), (20, 2, 20)).astype(np.float32)
    first, second = wide[:300, :, 15:], wide[25:, :, :310]
    (found,) = screen([thumbnail(first), thumbnail(second)])
    assert found.margin == (12, FACTOR, 12)
    assert np.abs(np.subtract(found.offset, (-25, 0, 15))).max() <= 12
    assert confirm(first, second, found.offset, found.margin) > 0.99


def test_bodies_of_one_outline_are_no_copies():
    """Air around and tissue inside are alike in every scan; what is inside decides."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 90)] * 3, indexing="ij"))
    body = (grid**2 * np.reshape([0.3, 1.8, 1.3], (3, 1, 1, 1))).sum(axis=0) < 1
    scans = [np.where(body, 40 * smooth(seed, body.shape, 6), -1000) for seed in range(4)]
    candidates = screen([thumbnail(scan) for scan in scans])
    assert candidates, "the outline alone makes them similar"
    scores = [confirm(scans[c.first], scans[c.second], c.offset, c.margin) for c in candidates]
    assert max(scores) < 0.7
    crop = scans[0][4:, 3:-2]
    (found,) = screen([thumbnail(scans[0]), thumbnail(crop)])
    assert confirm(scans[0], crop, found.offset, found.margin) > 0.97


def test_only_the_most_similar_of_very_many_pairs_are_compared(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_CONFIRMED", 3)
    thumbnails = [thumbnail(texture(seed, (60, 60, 60))) for seed in (0, 0, 0, 0)]
    looked_at, notes = [], []
    found = duplicates.near_duplicates(
        thumbnails,
        [Path(f"{number}.nii.gz") for number in range(len(thumbnails))],
        lambda path: None,
        lambda _, candidates, names: looked_at.extend(candidates) or [1.0] * len(candidates),
        note=notes.append,
    )
    assert [(first, second) for first, second, _ in found] == [(0, 1), (0, 2), (0, 3)]
    assert len(looked_at) == 3
    assert notes == [
        "6 pairs of images look alike when they are made small; only the 3 most similar were "
        "compared in detail"
    ]


PATIENTS = ["a", "a", "b", None, None, "b", "a"]
SUBSETS = ["labeled", "test", "test", "labeled", "labeled", "labeled", "labeled"]


@pytest.mark.parametrize("subsets", [None, SUBSETS])
def test_number_of_pairs_is_that_of_the_wanted_ones(subsets):
    pairs = Pairs(PATIENTS, subsets)
    wanted = [pair for pair in combinations(range(7), 2) if pairs.wanted(*pair)]
    assert pairs.number == len(wanted) == (17 if subsets is None else 7)
    assert (0, 1) not in wanted
    assert (3, 4) in wanted or subsets is not None


def search(monkeypatch, subsets=(), patients=PATIENTS):
    """The pairs that were screened of seven equal images, those that were found, and the notes."""
    thumbnails = [thumbnail(texture(0, (60, 60, 60)))] * 7
    screened, notes = [], []
    compare = duplicates._compare
    monkeypatch.setattr(
        duplicates,
        "_compare",
        lambda prepared, i, j, factors: screened.append((i, j)) or compare(prepared, i, j, factors),
    )
    found = duplicates.near_duplicates(
        thumbnails,
        [Path(f"{number}.nii.gz") for number in range(len(thumbnails))],
        lambda path: None,
        lambda _, candidates, names: [1.0] * len(candidates),
        patients,
        subsets,
        notes.append,
    )
    assert sorted(screened) == [(i, j) for i, j, _ in found]
    return [(i, j) for i, j, _ in found], notes


def test_pairs_of_one_patient_are_not_even_screened(monkeypatch):
    found, notes = search(monkeypatch)
    pairs = Pairs(PATIENTS)
    assert found == [pair for pair in combinations(range(7), 2) if pairs.wanted(*pair)]
    assert notes == []


def test_of_too_many_pairs_those_across_subsets_are_screened(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_SCREENED_SCANS", 17)
    assert len(search(monkeypatch, SUBSETS)[0]) == 17, "the limit itself is not too many"
    monkeypatch.setattr(duplicates, "MOST_SCREENED_SCANS", 16)
    found, notes = search(monkeypatch, SUBSETS)
    pairs = Pairs(PATIENTS, SUBSETS)
    assert found == [pair for pair in combinations(range(7), 2) if pairs.wanted(*pair)]
    assert notes == [
        "there are 17 pairs of images, and at most 16 are searched for images of the same scan at "
        "another crop or brightness: only the 7 across two subsets were. Exact copies were "
        "searched among all images"
    ]


@pytest.mark.parametrize("subsets", [(), SUBSETS, ["labeled"] * 7])
def test_far_too_many_pairs_are_not_screened(monkeypatch, subsets):
    monkeypatch.setattr(duplicates, "MOST_SCREENED_SCANS", 6)
    found, (note,) = search(monkeypatch, subsets)
    assert found == []
    assert note.startswith("there are 17 pairs of images, and at most 6 are searched")
    assert "this search is left out. Exact copies were searched among all images" in note
    assert ("(7 of them across two subsets)" in note) == (subsets is SUBSETS)
    monkeypatch.setattr(duplicates, "MOST_SCREENED_SCANS", 17)
    assert len(search(monkeypatch, subsets)[0]) == 17


def test_report_says_what_was_not_searched_and_copies_are_found(
    roots, folders, capsys, monkeypatch
):
    monkeypatch.setattr(duplicates, "MOST_SCREENED_SCANS", 5)
    assert convert(folders.root, *WHAT) == 0
    report = json.loads((made(roots) / "conversion_report.json").read_text(encoding="utf-8"))
    (warning,) = report["warnings"]
    assert warning.startswith("there are 10 pairs of images, and at most 5 are searched")
    assert "(6 of them across two subsets): this search is left out" in warning
    assert f"warning: {warning}" in capsys.readouterr().out
    write(scan(0), folders.image("p4"))
    assert convert(folders.root, *WHAT, "--overwrite") == 2
    assert "p1 (labeled) and p4 (unlabeled) hold the same image" in capsys.readouterr().err
