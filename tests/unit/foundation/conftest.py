from __future__ import annotations

import pytest

from tests.text_models import make_clip_folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A tiny CLIP on disk."""
    pytest.importorskip("open_clip")
    return make_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No weights, no network."""
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
