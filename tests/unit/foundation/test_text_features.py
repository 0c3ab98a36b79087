from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation.text_features import (
    VARIABLE,
    TextFeatures,
    features_file,
    read_features,
)


@pytest.fixture
def path(tmp_path):
    features = torch.nn.functional.normalize(torch.randn(3, 5), dim=-1)
    path = tmp_path / "features.npz"
    TextFeatures(("a", "b", "c"), features, "clip", ("x", "y", "z | w")).save(path)
    return path


def test_round_trip_in_the_order_of_the_labels(path):
    read = read_features(path)
    assert read.labels == ("a", "b", "c")
    assert read.texts == ("x", "y", "z | w")
    torch.testing.assert_close(read.for_labels(["c", "a"], path), read.features[[2, 0]])
    assert [p.name for p in path.parent.iterdir()] == ["features.npz"]


def test_missing_labels_are_named(path):
    with pytest.raises(UserError, match="features for a, b, c, not for d"):
        read_features(path).for_labels(["a", "d"], path)


@pytest.mark.parametrize("break_it", ["truncate", "text", "other", "nan", "shape"])
def test_broken_files(path, break_it):
    if break_it == "truncate":
        path.write_bytes(path.read_bytes()[:50])
    elif break_it == "text":
        path.write_text("no")
    elif break_it == "other":
        np.savez(path, a=np.zeros(3))
    else:
        content = dict(np.load(path))
        bad = np.full((3, 5), np.nan) if break_it == "nan" else np.zeros((2, 5))
        np.savez(path, **{**content, "features": bad})
    with pytest.raises(UserError, match=str(path)):
        read_features(path)


@pytest.mark.parametrize("value", [None, "/not/there"])
def test_variable_must_name_a_file(monkeypatch, value):
    monkeypatch.delenv(VARIABLE, raising=False)
    if value:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(UserError, match=VARIABLE):
        features_file()
