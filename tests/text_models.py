"""Tiny text models in open_clip's folder form, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WIDTH = 16


def make_clip_folder(folder: Path, features: int = WIDTH) -> Path:
    """A CLIP with a two-layer text tower and CLIP's own tokenizer."""
    config: dict[str, Any] = {
        "embed_dim": features,
        "vision_cfg": {"image_size": 8, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8},
        "text_cfg": {
            "context_length": 24,
            "vocab_size": 49408,
            "width": 8,
            "heads": 2,
            "layers": 2,
        },
    }
    return _write(folder, config)


def _write(folder: Path, config: dict[str, Any]) -> Path:
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{folder}")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
