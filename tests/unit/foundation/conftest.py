from __future__ import annotations

import pytest

from tests.text_models import make_biomedclip_folder, make_clip_folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A tiny CLIP on disk."""
    pytest.importorskip("open_clip")
    return make_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="session")
def biomedclip_folder(tmp_path_factory):
    """A tiny BiomedCLIP on disk."""
    pytest.importorskip("open_clip")
    pytest.importorskip("transformers")
    return make_biomedclip_folder(tmp_path_factory.mktemp("biomedclip") / "tiny")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No weights, no network."""
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
