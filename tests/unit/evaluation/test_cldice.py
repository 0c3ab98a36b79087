"""clDice: by hand, beside Dice, of pieces that thinning deletes, in the command and comparisons."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.ndimage import label
from skimage.morphology import skeletonize

from nnunet_semisup.cli import compare as compare_command
from nnunet_semisup.cli.evaluate import main
from nnunet_semisup.evaluation.cldice import cldice, skeleton
from nnunet_semisup.evaluation.metrics import compute_metrics


def tube(shape, *parts):
    """Return a mask of boxes, each a slice an axis."""
    mask = np.zeros(shape, bool)
    for part in parts:
        mask[part] = True
    return mask


ALONG = np.s_[4:7, 2:28]
GAP = np.s_[4:7, 13:17]


@pytest.mark.parametrize("depth", [None, 1, 3])
def test_a_gap_is_the_share_of_the_centerline_that_is_missing(depth):
    """In 2D, as a volume of one slice, and as a thick tube in 3D."""
    shape = (11, 30) if depth is None else (depth + 4 * (depth > 1), 11, 30)
    middle = () if depth is None else (slice(0, 1) if depth == 1 else slice(2, 5),)
    whole, gap = (tube(shape, (*middle, *part)) for part in (ALONG, GAP))
    broken = whole & ~gap
    line, pieces = (skeleton(np.squeeze(mask)) for mask in (whole, broken))
    there = (line & np.squeeze(broken)).sum() / line.sum()
    assert 0.7 < there < 0.95
    assert pieces.sum() > 10
    assert cldice(broken, whole) == pytest.approx(2 * there / (1 + there))
    assert cldice(whole, broken) == pytest.approx(cldice(broken, whole))
    assert cldice(whole, whole) == 1


def test_it_asks_for_the_course_not_for_the_width():
    """A vessel of half the width has a worse Dice than one with a gap, and the better clDice."""
    reference = tube((15, 40), np.s_[4:9, 2:38])
    narrow, broken = tube((15, 40), np.s_[5:8, 2:38]), reference & ~tube((15, 40), np.s_[:, 16:24])
    of = {name: compute_metrics(mask, reference, (1, 1), True).values
          for name, mask in (("narrow", narrow), ("broken", broken))}  # fmt: skip
    assert of["narrow"]["Dice"] < of["broken"]["Dice"]
    assert of["narrow"]["clDice"] == pytest.approx(1.0, abs=0.02)
    assert of["broken"]["clDice"] < 0.9


@pytest.mark.parametrize("size", [(2, 2, 2), (4, 4, 4), (2, 2, 8)])
def test_what_thinning_deletes_is_still_there(size):
    """skimage 0.26: Lee's skeleton of these is empty, so that they would count for nothing."""
    shape = (12, 12, 30)
    piece = tube(shape, tuple(slice(2, 2 + n) for n in size))
    assert not skeletonize(piece).any()
    assert skeleton(piece).any()
    assert cldice(piece, piece) == 1
    long = tube(shape, np.s_[7:10, 7:10, 2:28])
    assert cldice(long, long | piece) < 1
    assert cldice(long | piece, long) < 1


@pytest.mark.parametrize("seed", range(5))
def test_a_skeleton_is_in_every_component_and_in_nothing_else(seed):
    mask = np.random.default_rng(seed).random((9, 10, 11)) < 0.3
    line = skeleton(mask)
    assert not (line & ~mask).any()
    components, number = label(mask, np.ones((3, 3, 3)))
    assert set(np.unique(components[line])) == set(range(1, number + 1))


@pytest.mark.parametrize("shape", [(8,), (6, 7), (1, 1, 9), (1, 1, 1), (4, 5, 6)])
def test_empty_masks(shape):
    """The rule of the other overlaps: undefined where both are empty, else 0."""
    empty, full = np.zeros(shape, bool), np.ones(shape, bool)
    assert math.isnan(cldice(empty, empty))
    assert cldice(empty, full) == cldice(full, empty) == 0
    assert cldice(full, full) == 1


def test_masks_without_a_common_voxel_have_0():
    masks = [tube((9, 9), part) for part in (np.s_[1:3, :], np.s_[6:8, :])]
    assert cldice(*masks) == 0


def run(command, *arguments):
    with pytest.raises(SystemExit) as error:
        command(list(map(str, arguments)))
    return error.value.code


def test_the_command_prints_and_writes_it_on_request(folders, cube, capsys):
    folders.dataset_json({"background": 0, "vessel": 1, "other": 2})
    folders.case("a", cube, np.roll(cube, 1, axis=0))
    given = (folders.reference, folders.prediction, "-np", "1")
    file = folders.prediction / "semisup_evaluation.json"
    assert run(main, *given) == 0
    assert "clDice" not in capsys.readouterr().out
    assert "clDice" not in json.loads(file.read_text())["cases"]["a"]["classes"]["vessel"]
    assert run(main, *given, "--cldice") == 0
    header, _, row, *_ = capsys.readouterr().out.splitlines()
    assert "clDice" in header
    content = json.loads(file.read_text())
    of_case = content["cases"]["a"]["classes"]
    moved = np.roll(cube, 1, axis=0)
    assert of_case["vessel"]["clDice"] == pytest.approx(cldice(moved == 1, cube == 1))
    assert of_case["other"]["clDice"] is None
    assert f"{of_case['vessel']['clDice']:.4f}" in row
    assert content["summary"]["over_classes"]["clDice"]["count"] == 1
    assert "clDice" in content["definitions"]


def test_evaluations_are_compared_by_it_if_both_have_it(folders, cube, tmp_path, capsys):
    folders.dataset_json({"background": 0, "vessel": 1})
    folders.case("a", cube, np.roll(cube, 1, axis=0))
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for file, option in zip(files, (["--cldice"], ["--cldice"], []), strict=True):
        run(main, folders.reference, folders.prediction, "-np", "1", "--output", file, *option)
    capsys.readouterr()
    assert run(compare_command.main, *files[:2], "--metrics", "clDice") == 0
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "clDice"
    assert run(compare_command.main, *files[1:], "--metrics", "clDice") == 2
    said = capsys.readouterr().err
    assert f"no clDice in {files[2]}" in said
    assert "nnUNetv2_semisup_evaluate with --cldice" in said
