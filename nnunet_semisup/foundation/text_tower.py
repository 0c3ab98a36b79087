"""Run frozen text towers of CLIP models, through open_clip, with room for learned prompts.

[0] Radford et al., CLIP, ICML 2021, arXiv 2103.00020.
[1] Zhang et al., BiomedCLIP, NEJM AI 2025, arXiv 2303.00915.

Weights come from a file or folder that the user names, else from the local hub cache, else from
the hub, and are never replaced by random ones. open_clip is imported when a tower is loaded.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import hub
from nnunet_semisup.foundation.text_models import MODELS

VARIABLE = "NNUNET_SEMISUP_TEXT_WEIGHTS"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_CONFIGURATION = "open_clip_config.json"
_ENDINGS = (".safetensors", ".bin", ".pth")
_WITHOUT_FEATURE = {"pool_type": "none", "hf_pooler_type": "max_pooler"}
"""Entries of a ``text_cfg`` with which open_clip 3.3 has no vector of a text: none of a token is
chosen, or its pooler fails."""
_SAME_FEATURES = 1e-4
_LOADING = (RuntimeError, ValueError, OSError, KeyError, ImportError, pickle.UnpicklingError)


def weights_location(model: str) -> str | None:
    """Return the path of the weights on this machine; ``None`` if the hub has to give them.

    Args:
        model: key of :data:`MODELS`.

    Raises:
        UserError: what the variable names is not there or not enough, open_clip is not installed,
            or the hub is needed and cannot be reached.
    """
    try:
        import open_clip  # noqa: F401
    except ImportError as error:
        raise unavailable(
            model, f"{error.name} is not installed (pip install open_clip_torch transformers)"
        ) from error
    named = os.environ.get(VARIABLE)
    if not named:
        return _on_hub(model)
    if os.path.isdir(named):
        if not os.path.isfile(os.path.join(named, _CONFIGURATION)):
            raise unavailable(model, f"{VARIABLE} names {named}, without {_CONFIGURATION}")
        if not any(name.endswith(_ENDINGS) for name in os.listdir(named)):
            raise unavailable(
                model, f"{VARIABLE} names {named}, without weights ({', '.join(_ENDINGS)})"
            )
        _check_language_model(model, named)
        return named
    if not os.path.isfile(named):
        raise unavailable(model, f"{VARIABLE} names {named}, which does not exist")
    if not MODELS[model].from_file:
        raise unavailable(
            model,
            f"{VARIABLE} names the file {named}; this model needs a folder in open_clip's form",
        )
    return named


def _on_hub(model: str) -> str | None:
    """Return the path of cached weights; refuse those whose other parts are out of reach."""
    repository = MODELS[model].repository
    try:
        path = hub.find(repository, _WEIGHTS)
        if path is None or MODELS[model].from_file:
            return path
        config = hub.find(repository, (_CONFIGURATION,))
    except hub.UnavailableError as error:
        raise unavailable(model, str(error)) from error
    if config is not None:
        _check_language_model(model, os.path.dirname(config))
    return path


def _check_language_model(model: str, folder: str) -> None:
    """Refuse a folder whose text tower open_clip looks up on a hub out of reach, or cannot pool."""
    path = os.path.join(folder, _CONFIGURATION)
    try:
        with open(path, encoding="utf-8") as file:
            text = dict(json.load(file)["model_cfg"]["text_cfg"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise unavailable(model, f"{path} is no configuration of open_clip ({error!r})") from error
    language_model = text.get("hf_model_name")
    for name, value in _WITHOUT_FEATURE.items():
        if text.get(name) == value and name.startswith("hf") == bool(language_model):
            raise unavailable(
                model, f"{path} has {name} {value}, with which open_clip gives no vector of a text"
            )
    if not language_model or os.path.isdir(language_model):
        return
    try:
        hub.find(language_model, ("config.json",))
    except hub.UnavailableError as error:
        raise unavailable(
            model,
            f"{path} has hf_model_name {language_model}, whose config.json open_clip takes from "
            f"the hub, and {error}; put that file into a folder and write the folder's path there",
        ) from error


def unavailable(model: str, reason: str) -> UserError:
    """Return the error that says what is missing and every way out."""
    return UserError(
        f"The text model '{model}' ({MODELS[model].repository}) cannot be had: {reason}. Either "
        f"download it where there is a network and set {VARIABLE} to the weights file or to a "
        "folder with open_clip_config.json and the weights; or write its features there with "
        "nnUNetv2_semisup_text_features, bring that file, set NNUNET_SEMISUP_TEXT_FEATURES to it "
        'and train with nnUNet_semisup_set="text_model=features"; or train without text: '
        'nnUNet_semisup_set="text_model=none".'
    )


def load_text_tower(model: str) -> TextTower:
    """Load the frozen text tower of ``model`` on the CPU in float32; the image tower is dropped.

    Leaves the state of torch's generator as it was; open_clip draws values before it reads weights.

    Args:
        model: key of :data:`MODELS`.

    Raises:
        UserError: the weights cannot be had or do not fit the model.
    """
    path = weights_location(model)
    import open_clip

    folder, named = _named_folder(), os.environ.get(VARIABLE)
    pretrained = None if folder else path if named else MODELS[model].tag
    name = folder or MODELS[model].name
    try:
        with torch.random.fork_rng(devices=[]):
            clip = open_clip.create_model(name, pretrained=pretrained, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(name)
    except _LOADING as error:
        raise unavailable(model, str(error)) from error
    tower = TextTower(clip, tokenizer)
    _refuse_other_features(model, clip, tower)
    return tower


@torch.no_grad()
def _refuse_other_features(model: str, clip: Any, tower: TextTower) -> None:
    """Refuse a model whose texts this module would encode otherwise than open_clip."""
    texts = ["a medical image of the left atrium", "liver"]
    try:
        expected = clip.encode_text(tower.tokenizer(texts), normalize=True)
        difference = float((tower(texts) - expected).abs().max())
    except _LOADING as error:
        raise unavailable(model, f"its text tower cannot be used ({error})") from error
    if not difference <= _SAME_FEATURES:
        raise unavailable(
            model,
            "its features of a text differ from open_clip's own (encode_text) by up to "
            f"{difference:.2g}: this kind of text tower is not known here",
        )


def load_tokenizer(model: str) -> Any:
    """Load open_clip's tokenizer of ``model``, a small download where it comes from the hub.

    Args:
        model: key of :data:`MODELS`, for which :func:`weights_location` raises nothing.

    Raises:
        UserError: it cannot be had.
    """
    import open_clip

    name = _named_folder() or MODELS[model].name
    try:
        return open_clip.get_tokenizer(name)
    except _LOADING as error:
        raise unavailable(model, f"no tokenizer from {name} ({error})") from error


def _named_folder() -> str | None:
    """Return open_clip's name of the folder that the variable names, if it names one."""
    named = os.environ.get(VARIABLE)
    return f"local-dir:{named}" if named and os.path.isdir(named) else None


def token_ids(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Return ``(N, L)`` token numbers, padded to the length that the text model takes.

    Args:
        tokenizer: open_clip's.
        texts: to tokenize.

    Raises:
        UserError: a text is too long for the model.
    """
    ids: Tensor = tokenizer(list(texts))
    # With room for one token more, only what is cut anyway cannot show another word.
    room = ids.shape[1] + 1
    alone = tokenizer(list(texts), context_length=room)
    longer = tokenizer([f"{text} x" for text in texts], context_length=room)
    full = [t for t, a, b in zip(texts, alone, longer, strict=True) if torch.equal(a, b)]
    if full:
        raise UserError(
            f"Too long for the text model, which takes {ids.shape[1]} tokens: "
            f"{'; '.join(full)}. Shorten these descriptions."
        )
    return ids


class TextTower(nn.Module):
    """Turn texts into unit vectors, with access to the tokens' embeddings in between.

    Args:
        clip: open_clip's model; CLIP with its parts on the model itself, or one with ``.text``.
        tokenizer: open_clip's tokenizer of that model.
    """

    def __init__(self, clip: Any, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.tower: Any = getattr(clip, "text", clip)
        self.tower.visual = None
        self.from_transformers = hasattr(self.tower, "pooler")
        self.pool_type = getattr(self.tower, "text_pool_type", getattr(self.tower, "pool_type", ""))
        self.eos_id: Any = getattr(self.tower, "text_eos_id", getattr(self.tower, "eos_id", None))
        self.causal = (
            getattr(self.tower, "attn_mask", None) is not None
            and getattr(self.tower, "cls_emb", None) is None
            and self.pool_type in ("argmax", "eos")
        )
        """``True`` if what follows a text's last token has no part in its features."""
        self.requires_grad_(False)
        self.eval().float()

    def train(self, mode: bool = True) -> TextTower:
        """Stay in evaluation mode always."""
        return super().train(False)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return ``(N, L)`` token numbers, cut after the longest text if that changes no feature.

        Raises:
            UserError: a text is too long for the model.
        """
        ids = token_ids(self.tokenizer, texts)
        if self.from_transformers:
            ends = (ids != self.tower.config.pad_token_id).any(0).nonzero()
        elif self.causal:
            ends = (ids.eq(self.eos_id).int() if self.pool_type == "eos" else ids).argmax(-1)
        else:
            return ids
        return ids[:, : int(ends.max()) + 1]

    def embed(self, ids: Tensor) -> Tensor:
        """Return ``(N, L, width)`` token embeddings, before positions are added."""
        return self._embedding()(ids)

    def _embedding(self) -> Any:
        if self.from_transformers:
            return self.tower.transformer.get_input_embeddings()
        return self.tower.token_embedding

    def encode(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Return ``(N, D)`` unit vectors of texts given by their token embeddings.

        Args:
            embeddings: ``(N, L, width)``, as :meth:`embed` gives them or with tokens replaced.
            ids: ``(N, L)``, which say where a text ends.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            encode = self._encode_causal if self.causal else self._encode_as_open_clip
            features = encode(embeddings, ids)
            return F.normalize(features, dim=-1)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return ``(N, D)`` unit vectors of texts."""
        ids = self.tokenize(texts).to(next(self.parameters()).device)
        return self.encode(self.embed(ids), ids)

    def _encode_causal(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Encode as open_clip does, for texts that may be shorter than what it takes."""
        from open_clip.transformer import text_global_pool

        tower, length = self.tower, embeddings.shape[1]
        mask = tower.attn_mask[:length, :length]
        x = tower.transformer(embeddings + tower.positional_embedding[:length], attn_mask=mask)
        pooled = text_global_pool(tower.ln_final(x), ids, self.pool_type, eos_token_id=self.eos_id)
        projection = tower.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection

    def _encode_as_open_clip(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Encode by open_clip's own pass, whatever it pools, with these embeddings of tokens."""
        hook = self._embedding().register_forward_hook(lambda *_: embeddings)
        try:
            features = getattr(self.tower, "encode_text", self.tower)(ids)
        finally:
            hook.remove()
        # With ``output_tokens``, as of CoCa, the tokens' features follow.
        return features[0] if isinstance(features, tuple) else features
