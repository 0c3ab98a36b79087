"""Networks of a checkpoint beside the one that predicts: student, teacher and further members."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.decode import decode, encode
from nnunet_semisup.networks.members import Members
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.safe_files import lacking_keys, read_checkpoint_file
from nnunet_semisup.training.checkpoint import KEY

State = dict[str, Tensor]
Weights = Literal["default", "student", "teacher"]

NEEDED_KEYS = ("network_weights", "trainer_name", "current_epoch")
"""What each checkpoint of nnU-Net 2 has, as far as predicting takes it."""
_PREFIXES = ("inner.predictor.", "predictor.", "inner.", "")
"""Where the predicting network can lie in one in training; texts are around everything else."""
_TEACHER = "module."


@dataclass(frozen=True)
class Stored:
    """Hold what a checkpoint says about its networks; tensors stay on the disk until they are used.

    Attributes:
        trainer: name of the class that wrote it.
        default: weights that predict unless asked otherwise.
        training: state of the network in training, empty where the trainer saves none.
        teacher: state of the teacher, empty without one.
        epochs: that were trained.
    """

    trainer: str
    default: State
    training: State
    teacher: State
    epochs: int

    @classmethod
    def read(cls, path: Path) -> Stored:
        """Read a checkpoint of nnU-Net or of this package.

        Raises:
            UserError: it cannot be read, holds code, or is no checkpoint of nnU-Net.
        """
        content = read_checkpoint_file(path)
        if lacking := lacking_keys(content, NEEDED_KEYS):
            keys = list(content) if isinstance(content, dict) else [type(content).__name__]
            there = ", ".join(map(str, keys))[:200]
            raise UserError(f"{path}: no checkpoint of nnU-Net: no {', '.join(lacking)} ({there})")
        state = content.get(KEY, {})
        return cls(
            state.get("trainer", content["trainer_name"]),
            content["network_weights"],
            state.get("training_network", {}),
            state.get("teacher", {}),
            int(content["current_epoch"]),
        )

    @property
    def kinds(self) -> list[str]:
        """Choices of weights that there are, beside ``default``."""
        there = {"student": self.training, "teacher": self.teacher}
        return [name for name, state in there.items() if state]

    @property
    def number_of_members(self) -> int:
        """Members that learned together, the predicting one included."""
        start = self._others
        keys = (key.removeprefix(start) for key in self.training if key.startswith(start))
        return 1 + len({key.split(".")[0] for key in keys})

    @property
    def _others(self) -> str:
        return "inner.others." if any(k.startswith("inner.") for k in self.training) else "others."

    def weights(self, kind: Weights) -> State:
        """Return the state of the predicting network in one of :attr:`kinds`, or the default.

        Raises:
            KeyError: the checkpoint has none of that kind.
        """
        if kind == "default":
            return self.default
        if kind == "student":
            return _part(self.training, self.default, "")
        return _part(self.teacher, self.default, _TEACHER)

    def member(self, number: int) -> State:
        """Return the state of a further member, counted from 1; 0 predicts by default."""
        start = f"{self._others}{number - 1}."
        found = {k.removeprefix(start): v for k, v in self.training.items() if k.startswith(start)}
        if not found:
            raise KeyError(f"{self.trainer} has no member {number}")
        return found


def _part(state: State, wanted: State, outer: str) -> State:
    """Return the part of a state that has the keys of ``wanted``, below a prefix."""
    for prefix in _PREFIXES:
        if all(f"{outer}{prefix}{key}" in state for key in wanted):
            return {key: state[f"{outer}{prefix}{key}"] for key in wanted}
    raise KeyError("the checkpoint has no such network")


class OneDecoder(nn.Module):
    """Predict with another decoder on a network's encoder.

    Args:
        network: with an encoder, and its texts or codes; its own decoder is dropped.
        decoder: in its place.
    """

    def __init__(self, network: Any, decoder: nn.Module) -> None:
        super().__init__()
        network.decoder = None
        self.network = network
        self.decoder: Any = decoder

    def forward(self, x: Tensor) -> Any:
        """Map images ``(B, C, *spatial)`` to logits ``(B, K, *spatial)``."""
        return decode(self.decoder, encode(self.network, x)).logits


class MeanProbability(nn.Module):
    """Predict the mean of members' probabilities, as logits that give it.

    Args:
        members: run in one call, on one encoder where they share it.
        regions: outputs are overlapping regions.
    """

    def __init__(self, members: Members, regions: bool) -> None:
        super().__init__()
        self.members = members
        self.regions = regions

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, *spatial)`` to logits ``(B, K, *spatial)`` of the mean."""
        logits = [member.logits.float() for member in self.members(x).parts]
        return mean_logits(torch.stack(logits), self.regions)


def mean_logits(logits: Tensor, regions: bool) -> Tensor:
    """Return logits whose probabilities are the mean of those of ``logits``.

    Args:
        logits: ``(N, B, K, *spatial)`` of N predictions.
        regions: sigmoid in place of softmax over K.
    """
    if not regions:
        return logits.log_softmax(2).logsumexp(0) - torch.tensor(len(logits)).log()
    sigmoid = nn.functional.logsigmoid
    return sigmoid(logits).logsumexp(0) - sigmoid(-logits).logsumexp(0)


@dataclass(frozen=True)
class MemberBuilder:
    """Build members of a trainer's networks, and give them their states.

    Attributes:
        cls: the trainer's class.
        plan: of the networks.
        regions: outputs are overlapping regions.
    """

    cls: Any
    plan: PlannedNetwork
    regions: bool

    def network(self, which: int | Literal["mean"]) -> nn.Module:
        """Return a member, or the mean of all, with fresh weights; 0 is the predicting one."""
        predictor = self.cls.build_network_architecture(*self.plan.arguments)
        if which == 0:
            return predictor
        others = self.cls.further_members(predictor, self.plan)
        shared = self.cls.members_share_encoder
        if which == "mean":
            return MeanProbability(Members(predictor, others, shared), self.regions)
        return OneDecoder(predictor, others[which - 1]) if shared else others[which - 1]

    def state(self, stored: Stored, which: int | Literal["mean"]) -> State:
        """Return the state of what :meth:`network` builds, of a checkpoint."""
        if which == 0:
            return stored.default
        if which == "mean":
            others = range(1, stored.number_of_members)
            whole = {f"members.predictor.{k}": v for k, v in stored.default.items()}
            for number in others:
                state = stored.member(number)
                whole |= {f"members.others.{number - 1}.{k}": v for k, v in state.items()}
            return whole
        other = stored.member(which)
        if not self.cls.members_share_encoder:
            return other
        base = {k: v for k, v in stored.default.items() if not k.startswith("decoder.")}
        decoder = {f"decoder.{key}": value for key, value in other.items()}
        return {**{f"network.{key}": value for key, value in base.items()}, **decoder}
