"""Learned prompt tokens before the names of the classes.

[0] Zhou et al., Learning to prompt for vision-language models (CoOp), IJCV 2022, arXiv 2109.01134.
[1] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382, equation 1: ``[V]_1 ... [V]_M [CLASS]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation.text_tower import TextTower

_PLACEHOLDER = "X"


class PromptLearner(nn.Module):
    """Give text features as a function of learned tokens; the text model itself is frozen.

    The text model is neither a submodule nor in the state dict.

    Args:
        tower: the text model.
        texts: label to its texts; of several, the unit vectors are averaged.
        length: number of learned tokens, ``M`` in [1].
        per_class: every label has its own tokens (released code) or all share them ([0]).
        seed: of the tokens' initial values.
    """

    class_of: Tensor
    embeddings: Tensor
    ids: Tensor

    def __init__(
        self,
        tower: TextTower,
        texts: Mapping[str, Sequence[str]],
        length: int,
        per_class: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self._tower = [tower]
        self.num_classes = len(texts)
        flat = [(k, text) for k, given in enumerate(texts.values()) for text in given]
        ids = tower.tokenize([with_placeholders(text, length) for _, text in flat])
        start, placeholder = tower.tokenize([f"{_PLACEHOLDER} " * 3])[0, :2]
        if start == placeholder or not bool((ids[:, 1 : 1 + length] == placeholder).all()):
            raise UserError(
                f"The tokenizer of this text model does not keep '{_PLACEHOLDER}' as one token "
                "after a token that starts each text, so prompts cannot be learned; set "
                "text_prompt=template."
            )
        with torch.no_grad():
            embeddings = tower.embed(ids)
        generator = torch.Generator().manual_seed(seed)
        shape = (len(texts) if per_class else 1, length, embeddings.shape[-1])
        self.context = nn.Parameter(0.02 * torch.randn(shape, generator=generator))
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.register_buffer("class_of", torch.tensor([k for k, _ in flat]), persistent=False)

    def forward(self) -> Tensor:
        """Return ``(K, D)`` unit vectors, differentiable with respect to the learned tokens."""
        length = self.context.shape[1]
        of_text = self.context[self.class_of if self.context.shape[0] > 1 else 0 * self.class_of]
        start, end = self.embeddings[:, :1], self.embeddings[:, 1 + length :]
        features = self._tower[0].encode(torch.cat([start, of_text, end], 1), self.ids)
        return class_means(features, self.class_of, self.num_classes)


class StoredPrompts(nn.Module):
    """Hold a checkpoint's learned tokens where no text model is at hand and nothing is trained.

    Args:
        state: of a :class:`PromptLearner`.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.context = nn.Parameter(state["context"].clone())

    def forward(self) -> Tensor:
        """Refuse: text features cannot be had.

        Raises:
            UserError: always.
        """
        raise UserError(
            "The learned prompts were loaded without their text model, for validation. To train "
            "them on, continue with --c and more epochs (num_epochs)."
        )


def with_placeholders(text: str, length: int) -> str:
    """Return ``text`` after ``length`` tokens that learned ones replace ([1], equation 1)."""
    return f"{_PLACEHOLDER} " * length + text + "."


def class_means(features: Tensor, class_of: Tensor, num_classes: int) -> Tensor:
    """Return unit vectors of texts ``(N, D)`` as those of the classes they belong to ``(K, D)``."""
    sums = features.new_zeros(num_classes, features.shape[1]).index_add(0, class_of, features)
    return F.normalize(sums, dim=-1)


@torch.no_grad()
def template_features(
    tower: TextTower, texts: Mapping[str, Sequence[str]], template: str
) -> Tensor:
    """Return ``(K, D)`` unit vectors of ``template`` filled with the texts.

    Args:
        tower: the text model.
        texts: label to its texts.
        template: with ``{}`` where the text goes.
    """
    flat = [(k, text) for k, given in enumerate(texts.values()) for text in given]
    features = tower([template.replace("{}", text) for _, text in flat])
    class_of = torch.tensor([k for k, _ in flat], device=features.device)
    return class_means(features, class_of, len(texts))
