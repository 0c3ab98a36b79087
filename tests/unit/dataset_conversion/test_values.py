import numpy as np
import pytest

from nnunet_semisup.dataset_conversion.checking.intensities import LEVELS, intensities_of
from nnunet_semisup.dataset_conversion.checking.values import value_counts


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i2", "i4", "f4", ">i2"])
@pytest.mark.parametrize("view", [np.asarray, np.transpose, lambda a: a[::2], lambda a: a[:0]])
def test_values_are_counted_as_numpy_does(dtype, view):
    array = view((np.random.default_rng(0).normal(size=(7, 9, 11)) * 90).astype(dtype))
    expected, found = np.unique(array, return_counts=True), value_counts(array)
    assert found[0].dtype == expected[0].dtype
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_summaries_are_those_of_the_voxels(dtype):
    channel = np.zeros((20, 22, 24), dtype)
    channel[2:-3, 1:-1, 4:-2] = np.random.default_rng(0).normal(60, 20, (15, 20, 18))
    channel[5, 5, 5:9] = 0
    found, box = intensities_of(channel), channel[2:-3, 1:-1, 4:-2].astype(float)
    assert found.kept == box.size / channel.size
    for summary, voxels in ((found.box, box), (found.masked, box[box != 0])):
        np.testing.assert_allclose(summary.quantiles, np.quantile(voxels, LEVELS), rtol=1e-12)
        assert summary.mean == pytest.approx(voxels.mean())
        assert summary.deviation == pytest.approx(voxels.std())


def test_a_channel_of_zeros_has_a_summary():
    found = intensities_of(np.zeros((4, 5, 6), np.uint8))
    assert found.kept == 1.0
    assert (found.box.mean, found.box.deviation) == (0.0, 0.0)
    assert not found.masked.quantiles.any()
