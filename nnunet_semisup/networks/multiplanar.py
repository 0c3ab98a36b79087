"""Text meets the planes of a bottleneck: Text-SemiSeg's text-enhanced multiplanar block (TMR).

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382, section 2.1, equations 2 and 3.

The feature map is averaged along each axis. Every plane is a grid of tokens, which attend to
themselves and then to the class texts; the planes are broadcast back and added to the map, each
with a learned weight. In 2D the map itself is the one plane.

Equation 2 gives one vector a class, and [0] does not say how they become a plane again. Three
readings are offered, all with real tokens (one per bottleneck voxel):

``paper``
    The classes gather from the plane as in equation 2, and every token gets back a mixture of
    what they gathered, weighted by its own affinity to each class.
``gate``
    The released code: a token keeps its own value, scaled by the attention that the classes pay
    to it, here with mean 1 over the plane. ``official`` leaves the scale at the number of
    classes over the number of tokens. Text reweights tokens but adds no content.
``visual_query``
    Tokens ask, texts answer: the text's values enter the features.

Deviates from the released code: a token is a voxel, not a whole plane (there, the softmax over a
single token makes the output independent of the text); one residual instead of two; no dropout;
unit vectors of texts come multiplied by the square root of their width (networks/text_unet.py),
without which the attention is almost flat at the start; the output layers start at zero, so that
training starts from the plain network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.networks.seeding import draw_seed, seeded

READINGS = ("paper", "gate", "official", "visual_query")
WIDTH = 512
HEADS = 8


class PlaneSelfAttention(nn.Module):
    """Let a plane's tokens attend to each other, without bias in queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, N, width)`` to the same shape."""
        q, k, v = (_split(part, self.heads) for part in self.qkv(tokens).chunk(3, -1))
        return self.out(_merge(F.scaled_dot_product_attention(q, k, v)))


class TextCrossAttention(nn.Module):
    """Let class texts act on a plane's tokens ([0], equation 2), in one of :data:`READINGS`.

    At one seed, layers whose shape does not depend on the texts' width start equal for all widths.

    Args:
        width: of the tokens.
        text_dim: of the texts.
        heads: of the attention.
        head_dim: width of a head, whatever the tokens' width.
        reading: what equation 2 is taken to mean.
    """

    def __init__(self, width: int, text_dim: int, heads: int, head_dim: int, reading: str) -> None:
        super().__init__()
        self.heads = heads
        self.reading = reading
        asks, answers = (width, text_dim) if reading == "visual_query" else (text_dim, width)
        self.query = _linear(asks, heads * head_dim)
        self.key = _linear(answers, heads * head_dim)
        self.value = _linear(answers, heads * head_dim)
        self.out = _linear(heads * head_dim, width)

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Map tokens ``(B, N, width)`` and texts ``(B, K, text_dim)`` to ``(B, N, width)``."""
        asking, answering = (tokens, text) if self.reading == "visual_query" else (text, tokens)
        q, k, v = (
            _split(layer(value), self.heads)
            for layer, value in (
                (self.query, asking),
                (self.key, answering),
                (self.value, answering),
            )
        )
        if self.reading == "visual_query":
            return self.out(_merge(F.scaled_dot_product_attention(q, k, v)))
        affinity = (q @ k.transpose(-1, -2)).float() / q.shape[-1] ** 0.5
        attention = affinity.softmax(-1)
        if self.reading == "paper":
            gathered = attention.to(v.dtype) @ v
            return self.out(_merge(affinity.softmax(-2).transpose(-1, -2).to(v.dtype) @ gathered))
        gate = attention.sum(-2).unsqueeze(-1)
        if self.reading == "gate":
            gate = gate * (tokens.shape[1] / text.shape[1])
        return self.out(_merge(gate.to(v.dtype) * v))


class MultiplanarTextInteraction(nn.Module):
    """Add text-conditioned planes to a feature map ([0], equations 2 and 3).

    Attention and MLP are shared by the planes, embeddings are not.

    Args:
        channels: of the feature map.
        text_dim: of the texts.
        grid: spatial size of the map; any other size works, positions are interpolated.
        reading: one of :data:`READINGS`.
        width: of the tokens.
        heads: of both attentions.
        head_dim: width of a head of the cross-attention.
    """

    def __init__(
        self,
        channels: int,
        text_dim: int,
        grid: Sequence[int],
        reading: str = "paper",
        width: int = WIDTH,
        heads: int = HEADS,
        head_dim: int = 64,
    ) -> None:
        super().__init__()
        self.grid = tuple(grid)
        dims = len(self.grid)
        self.axes: tuple[int | None, ...] = tuple(range(2, 2 + dims)) if dims == 3 else (None,)
        sizes = [
            [size for axis, size in enumerate(self.grid, 2) if axis != collapsed]
            for collapsed in self.axes
        ]
        self.embeddings = nn.ModuleList(nn.Linear(channels, width) for _ in sizes)
        self.positions = nn.ParameterList(
            nn.Parameter(0.02 * torch.randn(1, width, *size)) for size in sizes
        )
        self.norm_tokens = nn.LayerNorm(width)
        self.self_attention = PlaneSelfAttention(width, heads)
        self.norm_plane = nn.LayerNorm(width)
        self.cross_attention = TextCrossAttention(width, text_dim, heads, head_dim, reading)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        outputs = [nn.Linear(width, channels) for _ in sizes]
        for layer in outputs:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.outputs = nn.ModuleList(outputs)
        self.plane_weights = nn.Parameter(torch.ones(len(sizes)))
        self.register_buffer("reading_number", torch.tensor(READINGS.index(reading)))

    @property
    def reading(self) -> str:
        """Meaning given to equation 2, one of :data:`READINGS`."""
        return self.cross_attention.reading

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        """Return the map with the planes added.

        Args:
            features: ``(B, channels, *spatial)``.
            text: ``(K, text_dim)``, or ``(B, K, text_dim)``.
        """
        text = text.expand(features.shape[0], -1, -1)
        result = features
        for plane, axis in enumerate(self.axes):
            change = self.plane_weights[plane] * self.plane(features, text, plane)
            result = result + (change if axis is None else change.unsqueeze(axis))
        return result

    def plane(self, features: Tensor, text: Tensor, index: int) -> Tensor:
        """Return what the text makes of one plane: ``(B, channels, rows, columns)``."""
        axis = self.axes[index]
        flat = features if axis is None else features.mean(axis)
        shape = flat.shape[2:]
        position = self.positions[index]
        if position.shape[2:] != shape:
            position = F.interpolate(position, size=shape, mode="bilinear")
        tokens = self.embeddings[index](_tokens(flat)) + _tokens(position)
        tokens = self.norm_tokens(tokens)
        tokens = self.norm_plane(tokens + self.self_attention(tokens))
        tokens = tokens + self.cross_attention(tokens, text)
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        return self.outputs[index](tokens).transpose(1, 2).unflatten(2, shape)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Make a layer that takes one number from the generator, whatever its size."""
    with seeded(draw_seed()):
        return nn.Linear(inputs, outputs)


def _tokens(plane: Tensor) -> Tensor:
    return plane.flatten(2).transpose(1, 2)


def _split(tokens: Tensor, heads: int) -> Tensor:
    """Turn ``(B, N, heads * d)`` into ``(B, heads, N, d)``."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge(tokens: Tensor) -> Tensor:
    """Turn ``(B, heads, N, d)`` into ``(B, N, heads * d)``."""
    return tokens.transpose(1, 2).flatten(2)
