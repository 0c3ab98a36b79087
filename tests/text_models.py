"""Tiny text models in open_clip's folder form, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WIDTH = 16


def make_clip_folder(
    folder: Path,
    features: int = WIDTH,
    seed: int = 0,
    spread: bool = False,
    form: bool | str = False,
    text: dict[str, Any] | None = None,
) -> Path:
    """A CLIP with a two-layer text tower and CLIP's own tokenizer.

    Args:
        folder: to make.
        features: width of the features.
        seed: of the weights.
        spread: embeddings and positions differ as much as trained ones do, not by 0.01.
        form: open_clip's CLIP (false), with a text tower of its own (true), or ``"coca"``.
        text: further entries of the ``text_cfg``.
    """
    config: dict[str, Any] = {
        "embed_dim": features,
        "vision_cfg": {"image_size": 8, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8},
        "text_cfg": {
            "context_length": 24,
            "vocab_size": 49408,
            "width": 8,
            "heads": 2,
            "layers": 2,
            **(text or {}),
        },
    }
    if form:
        config["custom_text"] = True
    if form == "coca":
        config["multimodal_cfg"] = {"context_length": 24, "width": 8, "heads": 2, "layers": 1}
    return _write(folder, config, seed, spread)


def make_biomedclip_folder(folder: Path, features: int = WIDTH) -> Path:
    """As BiomedCLIP: a two-layer BERT, its configuration in the folder ``bert``, few words."""
    bert = folder / "bert"
    bert.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x", ".", "background", "left", "heart"]
    (bert / "config.json").write_text(
        json.dumps(
            {
                "model_type": "bert",
                "vocab_size": len(words),
                "hidden_size": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 8,
                "max_position_embeddings": 24,
            }
        )
    )
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    config: dict[str, Any] = {
        "embed_dim": features,
        "vision_cfg": {"image_size": 8, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8},
        "text_cfg": {
            "hf_model_name": str(bert),
            "hf_tokenizer_name": "of the folder",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 24,
        },
    }
    return _write(folder, config)


def _write(folder: Path, config: dict[str, Any], seed: int = 0, spread: bool = False) -> Path:
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}", pretrained_hf=False)
        for name, value in model.named_parameters():
            if spread and ("embedding" in name or "cls_emb" in name):
                torch.nn.init.normal_(value.data)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
