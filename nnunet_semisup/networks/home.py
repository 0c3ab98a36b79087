"""A hierarchical soft mixture of experts over the voxels of a feature map (HoME).

[0] Mamba-HoME, NeurIPS 2025 (arXiv 2507.06363), by its released code (gmum/MambaHoME). Groups of
    voxels are summarised in slots, experts see the slots of their group, experts above those of all
    groups, and every voxel takes back a mixture of its group's slots.

Tokens are voxels in the order of memory; their number of dimensions does not matter.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError

SMALLEST_GATE = 0.01
"""Of a group ([0])."""
_LEAST_SHARE = 1e-6


class RMSNorm(nn.Module):
    """Scale vectors to a root mean square of 1, and each of their elements by a weight.

    Args:
        dim: of the vectors.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., dim)`` in float32."""
        return F.normalize(x.float(), dim=-1) * (math.sqrt(x.shape[-1]) * self.gamma)


class DynamicTanh(nn.Module):
    """Bound features by ``w tanh(a x) + b``, in place of a normalisation ([0]).

    Args:
        dim: number of channels, of which each has its ``w`` and ``b``.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., dim)``; ``a`` stays in [0.1, 2] as in [0]."""
        return self.weight * torch.tanh(self.alpha.clamp(0.1, 2.0) * x) + self.bias


class SlotEmbedding(nn.Module):
    """Make directions of slots from the mean of the tokens that they summarise.

    Args:
        dim: of tokens.
        slots: to make of a mean.
        rank: of the map from a mean to all slots; ``None``: full, as in [0], whose deepest stage
            has most of its weights in ``dim * slots * dim`` numbers.
    """

    def __init__(self, dim: int, slots: int, rank: int | None) -> None:
        super().__init__()
        full = rank is None
        width = dim if rank is None else rank
        self.reduce = nn.Identity() if full else nn.Linear(dim, width, bias=False)
        self.expand = nn.Linear(width, slots * dim, bias=False)
        self.norm = RMSNorm(dim)

    def forward(self, means: Tensor) -> Tensor:
        """Map ``(..., dim)`` to ``(..., slots, dim)``."""
        return self.norm(self.expand(self.reduce(means)).unflatten(-1, (-1, means.shape[-1])))


class Experts(nn.Module):
    """Apply experts, each a GEGLU of its own, at once to slots of their own.

    Weights start so that outputs are about as large as slots; as torch's layers start, they would
    be a fifth of that, and the layer, whose contribution starts at 0, would be slow to act.

    Args:
        experts: their number.
        dim: of slots.
        mult: hidden features are two thirds of this times ``dim``, as in [0].
    """

    def __init__(self, experts: int, dim: int, mult: float = 2) -> None:
        super().__init__()
        hidden = int(dim * mult * 2 / 3)
        self.weight_in = nn.Parameter(torch.empty(experts, dim, 2 * hidden))
        self.bias_in = nn.Parameter(torch.empty(experts, 1, 2 * hidden))
        self.weight_out = nn.Parameter(torch.empty(experts, hidden, dim))
        self.bias_out = nn.Parameter(torch.empty(experts, 1, dim))
        for bias in (self.bias_in, self.bias_out):
            nn.init.zeros_(bias)
        for weight, inputs in ((self.weight_in, dim), (self.weight_out, hidden)):
            nn.init.normal_(weight, std=1 / math.sqrt(inputs))

    def forward(self, slots: Tensor) -> Tensor:
        """Map ``(B, experts, slots, dim)`` to the same shape."""
        value, gate = (torch.matmul(slots, self.weight_in) + self.bias_in).chunk(2, -1)
        return torch.matmul(value * F.gelu(gate), self.weight_out) + self.bias_out


class SoftMoE(nn.Module):
    """Mix all tokens by experts, with one slot an expert for each block of consecutive tokens.

    The level above in [0]. Slots are means of tokens by a softmax over tokens, and tokens means of
    slots by a softmax over slots. What fills the last block up takes no part.

    Args:
        dim: of tokens.
        experts: their number, and that of the tokens in a block.
        rank: see :class:`SlotEmbedding`.
        official: count what fills up, zeros, as tokens, as the released code does.
    """

    def __init__(self, dim: int, experts: int, rank: int | None, official: bool = False) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.slots = SlotEmbedding(dim, experts, rank)
        self.experts = Experts(experts, dim)
        self.size, self.official = experts, official

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, n, dim)`` to the same shape."""
        blocks, real = in_groups(self.norm(x), self.size)
        tokens = blocks.flatten(1, 2)
        slots = self.slots(group_means(blocks, None if self.official else real))
        slots = slots.transpose(1, 2).flatten(1, 2)
        logits = torch.matmul(tokens, slots.transpose(1, 2))
        combine = logits.softmax(2)
        if not self.official:
            lowest = torch.finfo(logits.dtype).min
            logits = logits.masked_fill(~real.view(1, -1, 1), lowest)
        inputs = torch.matmul(logits.softmax(1).transpose(1, 2), tokens)
        outputs = self.experts(inputs.unflatten(1, (self.size, -1))).flatten(1, 2)
        return torch.matmul(combine, outputs)[:, : x.shape[1]]


class HierarchicalSoftMoE(nn.Module):
    """Mix tokens by two levels of experts: of their group's slots, then of all groups' slots.

    A token's shares of its group's slots are a softmax over slots. A slot is the mean of tokens by
    these shares, and tokens that only fill up the last group count nowhere. Gates of experts and of
    groups weigh what comes back from above.

    Args:
        dim: of tokens.
        group_size: consecutive tokens in a group.
        experts: of the first level.
        slots: of each of them in a group.
        experts_above: of the second level; 0: none, groups do not see each other.
        rank: see :class:`SlotEmbedding`.
        official_sum: as the released code has it: a slot is the sum of its tokens, which grows with
            the group; what fills up, zeros, counts in means; and gates weigh what goes to the level
            above, which normalises it, so that they have no effect.
    """

    def __init__(
        self,
        dim: int,
        group_size: int,
        experts: int,
        slots: int,
        experts_above: int,
        rank: int | None = None,
        official_sum: bool = False,
    ) -> None:
        super().__init__()
        self.group_size, self.official_sum = group_size, official_sum
        self.count, self.number = experts, experts * slots
        self.norm = RMSNorm(dim)
        self.slots = SlotEmbedding(dim, self.number, rank)
        self.experts = Experts(experts, dim)
        self.expert_gates = nn.Parameter(torch.ones(experts))
        self.group_gate = nn.Linear(dim, 1)
        self.above = SoftMoE(dim, experts_above, rank, official_sum) if experts_above else None

    def shares(self, groups: Tensor, means: Tensor) -> Tensor:
        """Return each token's shares of its group's slots, ``(B, groups, group_size, slots)``.

        Args:
            groups: ``(B, groups, group_size, dim)``.
            means: ``(B, groups, dim)`` of their tokens.
        """
        logits = torch.matmul(self.norm(groups), self.slots(means).transpose(-1, -2))
        return logits.softmax(-1)

    def summarised(self, groups: Tensor, real: Tensor, shares: Tensor) -> Tensor:
        """Return what the first level makes of groups, ``(B, groups, slots, dim)``.

        Args:
            groups: ``(B, groups, group_size, dim)``.
            real: ``(groups, group_size)``, false for what fills up.
            shares: of :meth:`shares`.
        """
        weights = shares * real[..., None]
        if not self.official_sum:
            weights = weights / weights.sum(2, keepdim=True).clamp_min(_LEAST_SHARE)
        slots = torch.matmul(weights.transpose(-1, -2), groups.to(weights.dtype))
        own = slots.unflatten(2, (self.count, -1)).transpose(1, 2)
        out = self.experts(own.flatten(2, 3)).view(own.shape)
        return out.transpose(1, 2).flatten(2, 3)

    def gates(self, means: Tensor) -> Tensor:
        """Return weights of slots, ``(B, groups, slots, 1)``: their expert's times their group's.

        Args:
            means: ``(B, groups, dim)`` of the tokens.
        """
        group = self.group_gate(means).sigmoid().clamp(SMALLEST_GATE, 1.0)
        of_slots = self.expert_gates.repeat_interleave(self.number // self.count)
        return (group * of_slots)[..., None]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, N, dim)`` to the same shape."""
        groups, real = in_groups(x, self.group_size)
        means = group_means(groups, None if self.official_sum else real)
        shares = self.shares(groups, means)
        slots, gates = self.summarised(groups, real, shares), self.gates(means)
        if self.official_sum:
            slots = self._seen_above(slots * gates)
        else:
            slots = self._seen_above(slots) * gates
        return torch.matmul(shares, slots.to(shares.dtype)).flatten(1, 2)[:, : x.shape[1]]

    def _seen_above(self, slots: Tensor) -> Tensor:
        return slots if self.above is None else self.above(slots.flatten(1, 2)).view(slots.shape)


def in_groups(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return tokens ``(B, N, dim)`` as ``(B, groups, size, dim)``, filled up with zeros.

    Also ``(groups, size)``, true where a token is one of the ``N``.
    """
    number = x.shape[1]
    groups = -(-number // size)
    filled = F.pad(x, (0, 0, 0, groups * size - number))
    real = torch.arange(groups * size, device=x.device) < number
    return filled.unflatten(1, (groups, size)), real.view(groups, size)


def group_means(groups: Tensor, real: Tensor | None) -> Tensor:
    """Return the mean of each group's tokens, ``(B, groups, dim)`` in float32.

    Args:
        groups: ``(B, groups, size, dim)``, with zeros where filled up.
        real: ``(groups, size)``, false there; ``None``: the zeros count.
    """
    total = groups.float().sum(2)
    return total / groups.shape[2] if real is None else total / real.sum(1)[:, None]


class MambaMixer(nn.Module):
    """Pass tokens through Mamba in float32, in which alone its recurrence is stable.

    Args:
        dim: of tokens.

    Raises:
        UserError: mamba_ssm or a CUDA device is missing.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        mamba = find_mamba()
        if not torch.cuda.is_available():
            raise UserError(
                "mixer=mamba needs a CUDA device, for which alone mamba_ssm has its kernels. Train "
                "and predict on such a machine, or make plans with --insert home:mixer=none."
            )
        self.mamba = mamba(d_model=dim, d_state=16, d_conv=4, expand=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, N, dim)`` to the same shape."""
        with torch.autocast(x.device.type, enabled=False):
            mixed: Tensor = self.mamba(x.float())
        return mixed


def find_mamba() -> Any:
    """Return the class ``Mamba`` of mamba_ssm.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        from mamba_ssm import Mamba
    except ImportError as error:
        raise UserError(
            f"mixer=mamba needs the package mamba-ssm, which cannot be imported ({error}). Install "
            "it (pip install 'nnunet-semisup[mamba]', on Linux with CUDA's compiler), or leave the "
            "mixer out."
        ) from error
    return Mamba


class HoMEBlock(nn.Module):
    """Add to a feature map what the experts make of it; nothing at the start of a training.

    Args:
        dim: channels of the map.
        mixer: ``none``, or ``mamba`` for a pass of Mamba over the tokens before ([0]).
        moe: arguments of :class:`HierarchicalSoftMoE`.

    Raises:
        UserError: see :class:`MambaMixer`.
    """

    def __init__(self, dim: int, mixer: str = "none", **moe: Any) -> None:
        super().__init__()
        parts: list[nn.Module] = [HierarchicalSoftMoE(dim, **moe)]
        if mixer == "mamba":
            parts.insert(0, MambaMixer(dim))
        self.parts = nn.ModuleList(parts)
        self.norms = nn.ModuleList(DynamicTanh(dim) for _ in parts)
        self.scales = nn.ParameterList(torch.zeros(dim) for _ in parts)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, *spatial)`` to the same shape and type."""
        for part, norm, scale in zip(self.parts, self.norms, self.scales, strict=True):
            added = scale * part(norm(x.flatten(2).transpose(1, 2)))
            x = x + added.transpose(1, 2).reshape(x.shape).to(x.dtype)
        return x
