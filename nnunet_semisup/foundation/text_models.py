"""Text models by the names that settings and commands have for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextModel:
    """Name a model as open_clip calls it, and say where the hub has it.

    Attributes:
        name: open_clip's name; with the schema ``hf-hub:`` it names configuration and weights.
        tag: open_clip's tag of the weights, or ``None``.
        repository: on the hub.
        from_file: whether a single file of weights is enough (else a folder is needed).
        terms: licence of the weights, and what their authors ask for.
    """

    name: str
    tag: str | None
    repository: str
    from_file: bool
    terms: str


MODELS = {
    "clip": TextModel(
        "ViT-B-32-quickgelu",
        "openai",
        "timm/vit_base_patch32_clip_224.openai",
        True,
        "MIT (https://github.com/openai/CLIP); not made to be deployed, its model card says",
    ),
    "biomedclip": TextModel(
        "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        None,
        "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        False,
        "MIT (its page on https://huggingface.co/microsoft); for research, its model card says",
    ),
}
