from __future__ import annotations

import time
from fractions import Fraction

import pytest
import torch

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import dinov2, hub
from nnunet_semisup.foundation.dinov2 import FrozenDINOv2, slices_for_grid, weights_location

pytest.importorskip("timm")


class TestWeights:
    @pytest.fixture(autouse=True)
    def empty_cache(self, monkeypatch, tmp_path):
        """No weights, no network."""
        import huggingface_hub.constants

        monkeypatch.delenv(dinov2.VARIABLE, raising=False)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    @pytest.mark.parametrize("load", [weights_location, FrozenDINOv2])
    def test_missing_ones_are_an_error_at_once(self, load):
        start = time.monotonic()
        with pytest.raises(UserError) as caught:
            load()
        assert time.monotonic() - start < 5
        message = str(caught.value)
        assert dinov2.MODEL in message
        assert dinov2.VARIABLE == "NNUNET_SEMISUP_DINOV2"
        assert dinov2.VARIABLE in message
        assert 'nnUNet_semisup_set="foundation_model=none"' in message

    def test_unreachable_hub_is_an_error_at_once(self, monkeypatch):
        monkeypatch.delenv("HF_HUB_OFFLINE")
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.delenv(name, raising=False)

        def refuse(*_, **__):
            raise OSError("no route")

        monkeypatch.setattr(hub.socket, "create_connection", refuse)
        with pytest.raises(UserError, match="not reachable"):
            weights_location()

    def test_named_file(self, monkeypatch, tmp_path):
        path = tmp_path / "weights.pth"
        monkeypatch.setenv(dinov2.VARIABLE, str(path))
        with pytest.raises(UserError, match=r"weights\.pth, which is not a file"):
            weights_location()
        path.touch()
        assert weights_location() == str(path)

    def test_code_in_a_named_file_is_not_run(self, monkeypatch, tmp_path):
        """timm 1.0.22 reads a file, unlike its own downloads, by ``weights_only=False``."""
        path = tmp_path / "weights.pth"
        torch.save({"x": Fraction(1, 2)}, path)
        monkeypatch.setenv(dinov2.VARIABLE, str(path))
        with pytest.raises(UserError, match=r"holds fractions\.Fraction, which is code"):
            FrozenDINOv2()


def test_frozen_features_of_random_weights():
    """One instance for all of it: the model has 22 million parameters."""
    torch.manual_seed(0)
    model = FrozenDINOv2(pretrained=False)
    model.train()
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    before = [p.clone() for p in model.parameters()]

    slices = torch.rand(2, 3, 20, 30, requires_grad=True)
    features = model(slices, (2, 3))
    assert features.shape == (2, 6, dinov2.WIDTH)
    assert not features.requires_grad
    assert (features[0, 0] - features[0, 5]).abs().max() > 1e-3

    adapter = torch.nn.Linear(4, dinov2.WIDTH)
    optimizer = torch.optim.SGD([*adapter.parameters(), *model.parameters()], 0.1)
    loss = (adapter(torch.randn(2, 6, 4)) - features).square().mean()
    loss.backward()
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))

    volume = torch.rand(1, 1, 8, 28, 28)
    grid = (2, 2, 2)
    assert model(slices_for_grid(volume, grid), grid[-2:]).shape == (2, 4, dinov2.WIDTH)


class TestSlicesForGrid:
    def test_2d_is_the_image(self):
        image = torch.rand(2, 1, 10, 12)
        slices = slices_for_grid(image, (3, 4))
        assert slices.shape == (2, 3, 10, 12)
        assert torch.equal(slices[:, 0], slices[:, 2])

    @pytest.mark.parametrize(("depth", "slabs"), [(8, 2), (9, 3), (5, 5), (7, 2), (16, 4)])
    def test_3d_takes_the_middle_of_each_slab(self, depth, slabs):
        ramp = torch.arange(depth).float().view(1, 1, depth, 1, 1).expand(2, 1, depth, 4, 6)
        slices = slices_for_grid(ramp, (slabs, 2, 3))
        assert slices.shape == (2 * slabs, 3, 4, 6)
        values = (slices[:slabs, 0, 0, 0] * (depth - 1)).tolist()
        middles = [(s + 0.5) * depth / slabs - 0.5 for s in range(slabs)]
        assert values == pytest.approx(middles, abs=0.75)

    def test_three_channels_are_colours_other_numbers_repeat_the_first(self):
        colours = torch.rand(1, 3, 8, 8)
        assert (slices_for_grid(colours, (2, 2)).diff(dim=1).abs().amax() > 0.1).item()
        two = torch.rand(1, 2, 8, 8)
        assert torch.equal(slices_for_grid(two, (2, 2)), slices_for_grid(two[:, :1], (2, 2)))

    def test_range_is_cut_at_percentiles_of_each_patch(self):
        image = torch.randn(2, 1, 40, 40)
        image[1] = 500 + 100 * image[1]
        image[0, 0, 0, 0] = 1e6
        slices = slices_for_grid(image, (2, 2))
        assert slices.min() == 0
        assert slices.max() == 1
        assert slices.mean((1, 2, 3)).tolist() == pytest.approx([0.5, 0.5], abs=0.1)

    def test_constant_patch_is_finite(self):
        assert torch.isfinite(slices_for_grid(torch.full((1, 1, 4, 8, 8), 3.0), (2, 2, 2))).all()

    def test_large_patches_are_subsampled_for_the_percentiles(self):
        image = torch.linspace(0, 1, 2**21).view(1, 1, 2**10, 2**11)
        slices = slices_for_grid(image, (2, 2))
        assert slices[0, 0].flatten()[2**20].item() == pytest.approx(0.5, abs=0.01)
