"""The sliding window in float32, beside nnU-Net's own."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from torch import nn

from nnunet_semisup.inference import float32
from nnunet_semisup.inference.float32 import Float32Predictor, float32_validation


class Constant(nn.Module):
    """Logits 0 for the background and 0.3 for one class, everywhere."""

    def forward(self, image):
        return torch.cat((torch.zeros_like(image), torch.full_like(image, 0.3)), 1)


class Position(nn.Module):
    """Logits that differ from voxel to voxel and from window to window."""

    def forward(self, image):
        waves = torch.sin(image * 7), torch.cos(image * 5), image * 0.1
        return torch.cat(waves, 1)


def classes_of(logits):
    return logits.argmax(0)


def regions_of(logits):
    return (logits.float().sigmoid() > 0.5).sum(0)


def predictor(cls, network, patch, convert=classes_of):
    """A predictor on the CPU, without plans."""
    made = cls(
        use_mirroring=False, perform_everything_on_device=True, device=torch.device("cpu"),
        allow_tqdm=False,
    )  # fmt: skip
    made.network, made.configuration_manager = network, SimpleNamespace(patch_size=patch)
    heads = network(torch.zeros(1, 1, *patch)).shape[1]
    made.label_manager = SimpleNamespace(
        num_segmentation_heads=heads, convert_logits_to_segmentation=convert
    )
    made.allowed_mirroring_axes = None
    return made


def test_float16_rounds_the_logits_at_borders_and_float32_does_not():
    """nnU-Net 2.8.1 gives 0.98 % of a patch-sized image the background, at logits of 0 and 0.3."""
    patch = (32, 32, 32)
    image = torch.zeros(1, *patch)
    rounded = predictor(nnUNetPredictor, Constant(), patch)
    wrong = rounded.predict_sliding_window_return_logits(image).argmax(0) == 0
    assert float(wrong.float().mean()) == pytest.approx(0.0098, abs=2e-4)
    exact = predictor(Float32Predictor, Constant(), patch)
    logits = exact.predict_sliding_window_return_logits(image)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits[1], torch.full(patch, 0.3), rtol=1e-5, atol=0)
    assert (exact.changed, exact.voxels) == (int(wrong.sum()), wrong.numel())


@pytest.mark.parametrize("convert", [classes_of, regions_of])
@pytest.mark.parametrize(
    ("patch", "shape"),
    [((16, 16, 16), (24, 30, 16)), ((16, 16, 16), (9, 40, 12)), ((16, 24), (3, 11, 40))],
)
def test_the_count_is_what_the_two_predictions_differ_in(patch, shape, convert):
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    stock = predictor(nnUNetPredictor, Position(), patch, convert)
    exact = predictor(Float32Predictor, Position(), patch, convert)
    expected, logits = (p.predict_sliding_window_return_logits(image) for p in (stock, exact))
    assert logits.shape == expected.shape == (3, *shape)
    assert exact.changed == int((convert(logits) != convert(expected)).sum())
    assert exact.voxels == image.numel()
    # The network is a function of the voxel, so that every window agrees and weights cancel out.
    torch.testing.assert_close(logits, Position()(image[None])[0], rtol=1e-4, atol=1e-5)


class OnDevice(torch.Tensor):
    """A tensor that NumPy cannot read until it is copied to the host, as on a GPU."""

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_logits_on_a_gpu_are_compared_on_the_host(monkeypatch):
    """nnU-Net takes the class of labels by NumPy; of regions it does not."""
    name = "_internal_predict_sliding_window_return_logits"
    for owner, method in ((nnUNetPredictor, name), (float32._Windows, "mean")):
        stock = getattr(owner, method)
        monkeypatch.setattr(
            owner, method, lambda *args, stock=stock: stock(*args).as_subclass(OnDevice)
        )

    def by_numpy(logits):
        return torch.from_numpy(logits.numpy().argmax(0))

    exact = predictor(Float32Predictor, Position(), (16, 16, 16), by_numpy)
    logits = exact.predict_sliding_window_return_logits(torch.zeros(1, 16, 20, 16))
    assert logits.shape == (3, 16, 20, 16)
    assert exact.voxels == 16 * 20 * 16


def test_windows_are_weighted_as_by_nnunet():
    """A network whose answer depends on the place in the window shows the weights."""

    class Place(nn.Module):
        def forward(self, image):
            ramp = torch.arange(image.shape[-1], dtype=torch.float32).expand_as(image)
            return torch.cat((ramp, -ramp), 1)

    patch, image = (8, 8, 16), torch.zeros(1, 8, 8, 24)
    logits = predictor(Float32Predictor, Place(), patch).predict_sliding_window_return_logits(image)
    weights = compute_gaussian(
        patch, value_scaling_factor=10, dtype=torch.float64, device=torch.device("cpu")
    )
    total, expected = torch.zeros(8, 8, 24, dtype=torch.float64), torch.zeros(8, 8, 24).double()
    for start in (0, 8):
        expected[..., start : start + 16] += weights * torch.arange(16)
        total[..., start : start + 16] += weights
    torch.testing.assert_close(logits[0], (expected / total).float(), rtol=1e-4, atol=1e-5)


def test_nnunets_own_predictor_is_back_afterwards():
    module = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    with float32_validation() as made:
        module.nnUNetPredictor(device=torch.device("cpu"))
    assert module.nnUNetPredictor is nnUNetPredictor
    assert [type(p) for p in made] == [Float32Predictor]
