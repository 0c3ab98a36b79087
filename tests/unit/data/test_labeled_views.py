"""Weak views and maps of labeled patches, through nnU-Net's own transforms and loader."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semisup.data.labeled_views import LabeledViews, maps_of
from nnunet_semisup.data.two_stream import LABELED, NumberedLoader
from tests.unit.augmentation.patches import PATCH, transforms_of

LABELS = LabelManager({"background": 0, "one": 1, "two": 2}, None)
REGIONS = LabelManager({"background": 0, "whole": (1, 2), "core": 2}, (1, 2))


class Cases:
    """A data set of three labeled cases, with voxels outside (-1)."""

    identifiers = ("a", "b", "c")

    def __init__(self, channels=2):
        generator = np.random.default_rng(0)
        self.cases = {}
        for name in self.identifiers:
            image = generator.normal(size=(channels, 9, 20, 18)).astype(np.float32)
            label = generator.integers(-1, 3, (1, 9, 20, 18)).astype(np.int16)
            self.cases[name] = image, label

    def load_case(self, identifier):
        image, label = self.cases[identifier]
        found = {k: np.argwhere(label == k) for k in (1, 2)}
        return image, label, None, {"class_locations": found}


def batches(training, dims, views=None, count=6):
    patch = PATCH[dims]
    loader = nnUNetDataLoader(Cases(), 2, patch, patch, LABELS, 0.3, transforms=training)
    numbered = NumberedLoader(loader, None, 5, LABELED, 0, 1, views)
    return [next(numbered) for _ in range(count)]


def what_was_seen(segmentation, labels):
    """Return a map of two channels that shows what it was given."""
    return torch.cat(
        [segmentation[:1].float(), torch.full_like(segmentation[:1], labels.has_regions).float()]
    )


def shape_of(segmentation, labels):
    return torch.tensor(segmentation.shape)


OPTIONS = {
    "plain": (3, {}),
    "2D": (2, {}),
    "dummy 2D": (3, {"do_dummy_2d_data_aug": True}),
    "masked": (3, {"use_mask_for_norm": [False, True]}),
    "masked 2D": (2, {"use_mask_for_norm": [True, True]}),
    "no mirroring": (3, {"mirror_axes": None}),
    "one resolution": (3, {"deep_supervision_scales": None}),
    "regions": (3, {"regions": [(1, 2), (2,)]}),
}


@pytest.fixture(params=OPTIONS)
def drawn(request):
    """Batches with nnU-Net's transforms alone, and with the views."""
    dims, options = OPTIONS[request.param]
    labels = REGIONS if "regions" in options else LABELS
    views = LabeledViews(True, {"seen": what_was_seen, "shape": shape_of}, labels)
    return (
        batches(transforms_of(dims, **options), dims),
        batches(views.added_to(transforms_of(dims, **options)), dims, views),
        request.param,
    )


def test_nnunets_view_is_equal_to_the_last_bit(drawn):
    plain, with_views, _ = drawn
    for one, other in zip(plain, with_views, strict=True):
        assert torch.equal(one["data"], other["data"])
        assert list(one["keys"]) == list(other["keys"])
        targets = one["target"] if isinstance(one["target"], list) else [one["target"]]
        others = other["target"] if isinstance(other["target"], list) else [other["target"]]
        assert all(torch.equal(a, b) for a, b in zip(targets, others, strict=True))


def test_the_weak_view_is_the_image_before_its_intensities_change(drawn):
    """Its transforms are the same but for those of intensity; some draws apply none of them."""
    _, with_views, name = drawn
    equal, different = 0, 0
    for batch in with_views:
        assert batch["weak"].shape == batch["data"].shape
        for weak, image in zip(batch["weak"], batch["data"], strict=True):
            same = torch.equal(weak, image)
            equal, different = equal + same, different + (not same)
    assert different > 0, name
    assert equal > 0, name


@pytest.mark.parametrize("name", OPTIONS)
def test_without_intensities_both_views_are_equal(name):
    """Geometry and mask: what is left of nnU-Net's transforms acts on both alike."""
    dims, options = OPTIONS[name]
    training = transforms_of(dims, **options)
    training.transforms = [t for t in training.transforms if type(t).__name__ != "RandomTransform"]
    views = LabeledViews(True, {}, LABELS)
    for batch in batches(views.added_to(training), dims, views):
        assert torch.equal(batch["weak"], batch["data"])
        if "use_mask_for_norm" in options:
            assert (batch["weak"][:, 1] == 0).any()


def test_maps_see_the_target_at_full_resolution(drawn):
    _, with_views, name = drawn
    for batch in with_views:
        full = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
        maps = maps_of(batch)
        assert set(maps) == {"seen", "shape"}
        assert torch.equal(maps["seen"][:, :1], full[:, :1].float())
        assert (maps["seen"][:, 1] == (name == "regions")).all()
        assert maps["shape"].tolist() == [list(full.shape[1:])] * 2


def test_without_any_wish_nothing_is_changed():
    training = transforms_of(2)
    views = LabeledViews(False, {}, LABELS)
    assert views.added_to(training) is training
    assert views.take() == {}
    assert set(batches(training, 2, views, 1)[0]) == {"data", "target", "keys"}


def test_a_worker_started_elsewhere_collects_its_own():
    """Sent to another process, transforms and loader still share what is set aside."""
    views = LabeledViews(True, {"shape": shape_of}, LABELS)
    training = views.added_to(transforms_of(2))
    loader = nnUNetDataLoader(Cases(), 2, PATCH[2], PATCH[2], LABELS, transforms=training)
    sent = pickle.loads(pickle.dumps(NumberedLoader(loader, None, 5, LABELED, 0, 1, views)))
    here, there = next(NumberedLoader(loader, None, 5, LABELED, 0, 1, views)), next(sent)
    for key in ("data", "weak", "map: shape"):
        assert torch.equal(here[key], there[key])
    assert views.samples == []
