"""Unlabeled images become what nnU-Net's preprocessor makes of them, without its mask."""

from __future__ import annotations

import numpy as np
import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semisup.preparation.images_only import ImagesOnly, preprocessor_of

RESAMPLING = {
    f"resampling_fn_{what}{suffix}": value
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))
    for suffix, value in (
        ("", "resample_data_or_seg_to_shape"),
        (
            "_kwargs",
            {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None},
        ),
    )
}
INTENSITIES = {"percentile_00_5": 10.0, "percentile_99_5": 90.0, "mean": 40.0, "std": 20.0}


def plan(schemes, masks, spacing=(1.0, 1.5, 2.0)):
    configuration = {
        "architecture": {},
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": list(spacing),
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": list(masks),
        **RESAMPLING,
    }
    return PlansManager(
        {
            "transpose_forward": [1, 0, 2],
            "configurations": {"x": configuration},
            "foreground_intensity_properties_per_channel": {
                str(channel): INTENSITIES for channel in range(len(schemes))
            },
        }
    )


def image(channels):
    data = np.zeros((channels, 12, 14, 16), np.int16)
    inside = np.random.default_rng(0).integers(1, 100, (channels, 8, 9, 11))
    data[:, 2:10, 3:12, 1:12] = inside
    data[:, 4:6, 5:7, 4:8] = 0
    data[:, 2, 3] = 0
    return data


@pytest.mark.parametrize(
    ("schemes", "masks"),
    [
        (["ZScoreNormalization"], [False]),
        (["ZScoreNormalization", "ZScoreNormalization"], [True, False]),
        (["CTNormalization", "NoNormalization"], [False, False]),
        (["RescaleTo01Normalization"], [True]),
    ],
)
@pytest.mark.parametrize("spacing", [(1.5, 1.0, 2.0), (1.1, 1.7, 1.6), (1.7, 1.6)])
def test_images_and_properties_are_nnunet_s(schemes, masks, spacing):
    plans = plan(schemes, masks, spacing)
    found = {}
    for kind in (DefaultPreprocessor, ImagesOnly):
        properties = {"spacing": [1.0, 1.5, 2.0]}
        case = image(len(schemes)), None, properties, plans, plans.get_configuration("x"), {}
        found[kind] = kind(verbose=False).run_case_npy(*case)
    (expected, mask, told), (made, zeros, told_too) = found.values()
    np.testing.assert_array_equal(made, expected)
    assert made.dtype == expected.dtype
    assert told_too == told
    assert zeros.shape == mask.shape
    assert not zeros.any()


def test_a_preprocessor_of_the_user_s_own_stays(monkeypatch):
    class Own(DefaultPreprocessor):
        pass

    configuration = plan(["NoNormalization"], [False]).get_configuration("x")
    assert preprocessor_of(configuration) is ImagesOnly
    monkeypatch.setattr(type(configuration), "preprocessor_class", Own)
    assert preprocessor_of(configuration) is Own


def test_a_label_is_refused():
    plans = plan(["NoNormalization"], [False])
    data = image(1)
    with pytest.raises(ValueError, match="nnU-Net's own"):
        ImagesOnly(verbose=False).run_case_npy(
            data, data, {"spacing": [1, 1, 1]}, plans, plans.get_configuration("x"), {}
        )
