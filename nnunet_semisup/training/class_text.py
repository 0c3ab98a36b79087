"""The class texts of a training: where they come from, and the gradient of learned ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from nnunet_semisup.training.text_guidance import TextGuidance

MODELS = (*text_tower.MODELS, "features", "random", "none")
PROMPTS = ("learned", "template")
SAME_FEATURES = 1e-4
"""Greatest difference in a component of unit vectors that two machines may compute."""


class ClassText:
    """Texts, their features, and the learner of their prompts.

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
        """Moves features, prompts and text model."""
        self.features = self.features.to(device)
        for module in (self.prompts, self._tower):
            if module is not None:
                module.to(device)

    @torch.no_grad()
    def broadcast(self) -> None:
        """Gives all processes the first one's values."""
        tensors = [self.features]
        if self.prompts is not None:
            tensors.append(self.prompts.context)
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)

    @torch.no_grad()
    def current(self) -> Tensor:
        """``(K, D)`` unit vectors as they are now."""
        return self.features if self.prompts is None else self.prompts()

    def leaf(self) -> Tensor:
        """``(K, D)`` unit vectors for the passes of one step; a leaf if they are learned."""
        if self.prompts is None:
            return self.features
        self._graph = self.prompts()
        self._leaf = self._graph.detach().requires_grad_()
        return self._leaf

    def backward(self, distributed: bool) -> None:
        """Propagates the leaf's gradient, averaged over processes, to the learned tokens."""
        graph, leaf = self._graph, self._leaf
        self._graph = self._leaf = None
        if graph is None or leaf is None or leaf.grad is None:
            return
        if distributed:
            torch.distributed.all_reduce(leaf.grad)
            leaf.grad /= torch.distributed.get_world_size()
        graph.backward(leaf.grad)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs; the text model is not part of it."""
        return {
            "encoder": self.encoder,
            "texts": self.texts,
            "features": self.features.cpu(),
            "prompts": None if self.prompts is None else self.prompts.state_dict(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ClassText:
        """What :meth:`state_dict` gave, without a text model: enough where nothing is trained."""
        prompts = None if state["prompts"] is None else StoredPrompts(state["prompts"])
        return cls(state["encoder"], state["texts"], state["features"], prompts)

    def check_state(self, state: dict[str, Any]) -> None:
        """Refuses to continue with what another training began.

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

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores learned prompts."""
        if self.prompts is not None:
            self.prompts.load_state_dict(state["prompts"])


def check_text(values: Mapping[str, Any], dataset_json: dict[str, Any], dataset_name: str) -> None:
    """Refuses what :func:`class_text` could not use, without loading a text model.

    Args:
        values: hyper-parameters of :class:`~nnunet_semisup.training.text_guidance.TextGuidance`.
        dataset_json: its content.
        dataset_name: name of the data set's folders.

    Raises:
        UserError: the model's weights cannot be had, a description names no label or is too long
            for the model, or a features file lacks a label.
    """
    model = values["text_model"]
    if model == "features":
        path = features_file()
        read_features(path).for_labels(channel_labels(dataset_json), path)
    elif model == "random":
        features_width(TEXT_DIM)
    elif model in text_tower.MODELS:
        texts = [t for given in class_texts(dataset_json, dataset_name).values() for t in given]
        text_tower.weights_location(model)
        tokenizer = text_tower.load_tokenizer(model)
        text_tower.token_ids(tokenizer, [_prompt(values, text) for text in texts])


def _prompt(values: Mapping[str, Any], text: str) -> str:
    if values["text_prompt"] == "learned":
        return with_placeholders(text, values["prompt_length"])
    return values["text_template"].replace("{}", text)


def class_text(trainer: TextGuidance, seed: int) -> ClassText | None:
    """What the trainer's hyper-parameters ask for; ``None`` without text.

    Args:
        trainer: with its hyper-parameters set.
        seed: of random features and of the prompts' initial values.

    Raises:
        UserError: as :func:`check_text`.
    """
    model = trainer.text_model
    labels = channel_labels(trainer.dataset_json)
    if model == "none":
        return None
    if model == "random":
        generator = torch.Generator().manual_seed(seed)
        size = len(labels), features_width(TEXT_DIM)
        features = F.normalize(torch.randn(size, generator=generator), dim=-1)
        made = ClassText(model, {label: [] for label in labels}, features)
    elif model == "features":
        made = _from_file(trainer, labels)
    else:
        made = _from_tower(trainer, seed)
    made.to(trainer.device)
    if trainer.is_ddp:
        made.broadcast()
    return made


def _from_file(trainer: TextGuidance, labels: list[str]) -> ClassText:
    path = features_file()
    read = read_features(path)
    features = read.for_labels(labels, path)
    texts = {label: [text] for label, text in zip(read.labels, read.texts, strict=True)}
    trainer.print_to_log_file(
        f"Text features of {read.model} from {path}: they stay as they are, no prompt is learned"
    )
    return ClassText(read.model, {label: texts[label] for label in labels}, features)


def _from_tower(trainer: TextGuidance, seed: int) -> ClassText:
    texts = class_texts(trainer.dataset_json, trainer.plans_manager.dataset_name)
    empty = not_words(texts)
    if empty:
        trainer.print_to_log_file(
            f"The labels {', '.join(empty)} say little to a text model. Describe them in "
            "class_descriptions.json beside dataset.json"
        )
    tower = text_tower.load_text_tower(trainer.text_model)
    if trainer.text_prompt == "template":
        features = template_features(tower, texts, trainer.text_template)
        return ClassText(trainer.text_model, texts, features)
    prompts = PromptLearner(tower, texts, trainer.prompt_length, trainer.prompt_per_class, seed)
    with torch.no_grad():
        return ClassText(trainer.text_model, texts, prompts(), prompts, tower)
