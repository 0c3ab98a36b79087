"""Entropy of the mean, and the temperature, on made-up logits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

from nnunet_semisup.inference import calibration
from nnunet_semisup.inference.calibration import calibration_error, fit, voxels_of
from nnunet_semisup.inference.stored import mean_logits
from nnunet_semisup.inference.uncertainty import entropy, mean_of, write_map
from tests.helpers import nnunet_folders


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_of_made_up_labels_is_found(generator, true):
    """Labels drawn from softmax(logits / T) have the temperature T."""
    logits = 4 * torch.randn(50_000, 3, generator=generator)
    labels = torch.multinomial((logits / true).softmax(1), 1, generator=generator)[:, 0]
    found = fit(logits, labels)
    assert found.temperature == pytest.approx(true, rel=0.03)
    assert found.nll_after <= found.nll_before + 1e-9
    assert found.ece_after < 0.01
    if true != 1:
        assert found.ece_before > 0.03


def test_calibration_error_by_hand():
    """Two bins: confidence 0.95 always right, 0.6 right half of the time."""
    p = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.6, 0.4]])
    labels = torch.tensor([0, 0, 0, 1])
    assert calibration_error(p, labels) == pytest.approx(0.5 * 0.05 + 0.5 * 0.1)


def test_entropy_by_hand():
    p = torch.tensor([[1.0, 0.25], [0.0, 0.25], [0.0, 0.25], [0.0, 0.25]])
    torch.testing.assert_close(entropy(p, False), torch.tensor([0.0, 1.0]))
    regions = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    torch.testing.assert_close(entropy(regions, True), torch.tensor([0.0, 0.5]))


@pytest.mark.parametrize("regions", [False, True])
def test_both_means_are_of_the_probabilities(generator, regions):
    logits = 3 * torch.randn(3, 1, 4, 5, 6, generator=generator)
    p = logits.sigmoid() if regions else logits.softmax(2)
    for mean in (mean_logits(logits, regions)[0], mean_of(logits[:, 0], regions)):
        found = mean.sigmoid() if regions else mean.softmax(0)
        torch.testing.assert_close(found, p.mean(0)[0])


def test_a_mean_of_sure_predictions_stays_finite():
    logits = torch.tensor([[[80.0], [-80.0]], [[80.0], [-80.0]]])[:, None]
    for regions in (False, True):
        assert mean_logits(logits, regions).isfinite().all()
        assert mean_of(logits[:, 0], regions).isfinite().all()


def manager(ignore=None, regions=None):
    return SimpleNamespace(
        has_ignore_label=ignore is not None,
        ignore_label=ignore,
        has_regions=regions is not None,
        foreground_regions=regions,
    )


def test_voxels_to_ignore_are_left_out_and_padding_is_background(generator):
    segmentation = torch.tensor([[0, 1, 3], [-1, 3, 1]])
    logits = torch.arange(6.0).reshape(1, 2, 3).repeat(2, 1, 1)
    rows, labels = voxels_of(logits, segmentation, manager(ignore=3), generator)
    found = sorted(zip(rows[:, 0].tolist(), labels.tolist(), strict=True))
    assert found == [(0.0, 0), (1.0, 1), (3.0, 0), (5.0, 1)]


def test_each_region_is_a_question_of_its_own(generator):
    segmentation = torch.tensor([0, 1, 2])
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    rows, labels = voxels_of(logits, segmentation, manager(regions=[(1, 2), 2]), generator)
    found = sorted(zip(rows[:, 1].tolist(), labels.tolist(), strict=True))
    assert found == [(1.0, 0), (2.0, 1), (3.0, 1), (4.0, 0), (5.0, 0), (6.0, 1)]
    assert (rows[:, 0] == 0).all()


@pytest.mark.parametrize("directions", ["LPS", "RAS", "ASL", "PIR"])
def test_a_map_lies_as_the_label_does_under_the_reader_that_turns(tmp_path, directions):
    """SimpleITKIOWithReorient reads in RAS and writes labels back as they were."""
    reader = SimpleITKIOWithReorient()
    values = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((1.0, 2.0, 3.0))
    source = tmp_path / "case_0000.nii.gz"
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, directions), str(source))
    read, properties = reader.read_images([str(source)])
    label, target = tmp_path / "case.nii.gz", tmp_path / "map.nii.gz"
    reader.write_seg((read[0] > 0.5).astype(np.uint8), str(label), properties)
    write_map(read[0], label, target, ".nii.gz", SimpleITKIOWithReorient)
    turned = [SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(p)), "LPS") for p in (label, target)]
    marked, found = (SimpleITK.GetArrayFromImage(one) for one in turned)
    assert np.array_equal(found > 0.5, marked > 0)
    assert np.array_equal(np.sort(found, None), np.sort(values, None))


def test_cases_are_found_by_their_names_and_not_by_patterns(tmp_path, monkeypatch):
    folder = nnunet_folders(tmp_path, monkeypatch).preprocessed / "Dataset001_A" / "plans_3d"
    folder.mkdir(parents=True)
    for name in ("a[1].b2nd", "a[1]_seg.b2nd", "a[1].pkl", "b.b2nd"):
        (folder / name).touch()
    (folder.parent / "splits_final.json").write_text('[{"train": [], "val": ["a[1]", "b", "c"]}]')
    predictor = SimpleNamespace(
        plans_manager=SimpleNamespace(dataset_name="Dataset001_A"),
        configuration_manager=SimpleNamespace(data_identifier="plans_3d"),
    )
    assert calibration.held_out_cases(predictor, 0) == ([(folder, "a[1]")], "")


def test_fewer_voxels_are_drawn_where_cases_and_classes_are_many(monkeypatch):
    drawn = []

    def voxels(logits, label, manager, generator, number):
        drawn.append(number)
        return torch.randn(10, 2, generator=generator), torch.randint(2, (10,), generator=generator)

    monkeypatch.setattr(calibration, "voxels_of", voxels)
    monkeypatch.setattr(calibration, "_preprocessed", lambda cases: [(None, None)] * len(cases))
    predictor = SimpleNamespace(
        mean_logits=lambda image: None, label_manager=SimpleNamespace(num_segmentation_heads=118)
    )
    for cases in (2, 240):
        calibration.fit_on_cases(predictor, [("folder", "case")] * cases)
    assert drawn[0] == calibration.VOXELS
    assert 240 * 118 * drawn[-1] <= calibration.NUMBERS
