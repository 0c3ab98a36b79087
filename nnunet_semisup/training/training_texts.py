"""The class texts of a training: where they come from, and the gradient of learned ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import text_tower
from nnunet_semisup.foundation.class_texts import channel_labels, class_texts, not_words
from nnunet_semisup.foundation.text_features import features_file, features_width, read_features
from nnunet_semisup.networks.prompts import (
    PromptLearner,
    StoredPrompts,
    template_features,
    with_placeholders,
)
from nnunet_semisup.networks.text_unet import TEXT_DIM

SAME_FEATURES = 1e-4
"""Greatest difference in a component of unit vectors that two machines may compute."""


class Wanted(NamedTuple):
    """Hold what a training asks for.

    Attributes:
        model: ``clip``, ``biomedclip``, ``features``, ``random`` or ``none``.
        prompt: ``learned`` or ``template``.
        template: with ``{}`` where the class goes.
        length: number of learned tokens.
        per_class: whether every class learns its own.
    """

    model: str
    prompt: str
    template: str
    length: int
    per_class: bool


class ClassText:
    """Hold texts, their features, and the learner of their prompts.

    Args:
        encoder: name of what made the features; of a file, the model that it names.
        texts: label to its texts, in the order of the output channels.
        features: ``(K, D)`` unit vectors; of learned prompts, the initial ones.
        prompts: learner of prompts, or ``None``.
        tower: its frozen text model.
    """

    def __init__(
        self,
        encoder: str,
        texts: Mapping[str, list[str]],
        features: Tensor,
        prompts: PromptLearner | StoredPrompts | None = None,
        tower: text_tower.TextTower | None = None,
    ) -> None:
        self.encoder = encoder
        self.texts = dict(texts)
        self.features = features
        self.prompts = prompts
        self._tower = tower
        self._graph: Tensor | None = None
        self._leaf: Tensor | None = None

    def to(self, device: torch.device) -> None:
        """Move features, prompts and text model."""
        self.features = self.features.to(device)
        for module in (self.prompts, self._tower):
            if module is not None:
                module.to(device)

    def broadcast(self) -> None:
        """Give all processes the first one's features."""
        torch.distributed.broadcast(self.features, 0)

    @torch.no_grad()
    def current(self) -> Tensor:
        """Return ``(K, D)`` unit vectors as they are now."""
        return self.features if self.prompts is None else self.prompts()

    def leaf(self) -> Tensor:
        """Return ``(K, D)`` unit vectors for the passes of one step; a leaf if they are learned."""
        if self.prompts is None:
            return self.features
        self._graph = self.prompts()
        self._leaf = self._graph.detach().requires_grad_()
        return self._leaf

    def backward(self) -> None:
        """Propagate the leaf's gradient to the learned tokens; their trainer averages it."""
        graph, leaf = self._graph, self._leaf
        self._graph = self._leaf = None
        if graph is not None and leaf is not None and leaf.grad is not None:
            graph.backward(leaf.grad)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; the text model is not part of it."""
        return {
            "encoder": self.encoder,
            "texts": self.texts,
            "features": self.features.cpu(),
            "prompts": None if self.prompts is None else self.prompts.state_dict(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ClassText:
        """Restore what :meth:`state_dict` gave, without a text model: enough to train nothing."""
        prompts = None if state["prompts"] is None else StoredPrompts(state["prompts"])
        return cls(state["encoder"], state["texts"], state["features"], prompts)

    def check_state(self, state: dict[str, Any]) -> None:
        """Refuse to continue with what another training began.

        Raises:
            UserError: the checkpoint was trained with texts of another encoder or width, other
                texts, or other features of the same texts.
        """
        then, now = state["features"].cpu(), self.features.cpu()
        for what, before, after in (
            ("the text encoder", state["encoder"], self.encoder),
            ("the class texts", state["texts"], self.texts),
            ("text features of width", then.shape[1], now.shape[1]),
        ):
            if before != after:
                raise UserError(
                    f"The checkpoint was trained with {what} {before}, but this run has {after}. "
                    "Continue with the same, or start anew without --c."
                )
        difference = float((then - now).abs().max())
        if difference > SAME_FEATURES:
            raise UserError(
                f"The checkpoint was trained with other features of the same texts ({self.encoder}"
                f"): they differ by up to {difference:.2g}. Continue with the same features file "
                "or weights of the text model, or start anew without --c."
            )


def check_text(wanted: Wanted, dataset_json: dict[str, Any], dataset_name: str) -> None:
    """Refuse what :func:`class_text` could not use, without loading a text model.

    Args:
        wanted: texts.
        dataset_json: its content.
        dataset_name: name of the data set's folders.

    Raises:
        UserError: the model's weights cannot be had, a description names no label or is too long
            for the model, or a features file lacks a label.
    """
    if wanted.model == "features":
        path = features_file()
        read_features(path).for_labels(channel_labels(dataset_json), path)
    elif wanted.model == "random":
        features_width(TEXT_DIM)
    elif wanted.model in text_tower.MODELS:
        texts = [t for given in class_texts(dataset_json, dataset_name).values() for t in given]
        text_tower.weights_location(wanted.model)
        tokenizer = text_tower.load_tokenizer(wanted.model)
        text_tower.token_ids(tokenizer, [_prompt(wanted, text) for text in texts])


def _prompt(wanted: Wanted, text: str) -> str:
    if wanted.prompt == "learned":
        return with_placeholders(text, wanted.length)
    return wanted.template.replace("{}", text)


def class_text(
    wanted: Wanted,
    dataset_json: dict[str, Any],
    dataset_name: str,
    seed: int,
    log: Callable[[str], None],
) -> ClassText | None:
    """Return the texts that a training asks for; ``None`` without text.

    Args:
        wanted: texts.
        dataset_json: its content.
        dataset_name: name of the data set's folders.
        seed: of random features and of the prompts' initial values.
        log: told where features come from and which labels say little.

    Raises:
        UserError: as :func:`check_text`.
    """
    labels = channel_labels(dataset_json)
    if wanted.model == "none":
        return None
    if wanted.model == "random":
        generator = torch.Generator().manual_seed(seed)
        size = len(labels), features_width(TEXT_DIM)
        features = F.normalize(torch.randn(size, generator=generator), dim=-1)
        return ClassText(wanted.model, {label: [] for label in labels}, features)
    if wanted.model == "features":
        return _from_file(labels, log)
    return _from_tower(wanted, class_texts(dataset_json, dataset_name), seed, log)


def _from_file(labels: list[str], log: Callable[[str], None]) -> ClassText:
    path = features_file()
    read = read_features(path)
    features = read.for_labels(labels, path)
    texts = {label: [text] for label, text in zip(read.labels, read.texts, strict=True)}
    log(f"Text features of {read.model} from {path}: they stay as they are, no prompt is learned")
    return ClassText(read.model, {label: texts[label] for label in labels}, features)


def _from_tower(
    wanted: Wanted, texts: dict[str, list[str]], seed: int, log: Callable[[str], None]
) -> ClassText:
    if empty := not_words(texts):
        log(
            f"The labels {', '.join(empty)} say little to a text model. Describe them in "
            "class_descriptions.json beside dataset.json"
        )
    tower = text_tower.load_text_tower(wanted.model)
    if wanted.prompt == "template":
        return ClassText(wanted.model, texts, template_features(tower, texts, wanted.template))
    prompts = PromptLearner(tower, texts, wanted.length, wanted.per_class, seed)
    with torch.no_grad():
        return ClassText(wanted.model, texts, prompts(), prompts, tower)
