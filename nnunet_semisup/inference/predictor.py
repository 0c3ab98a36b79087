"""nnU-Net's predictor with other weights or members, and with the mean of several predictions."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import Tensor, nn

from nnunet_semisup.inference.stored import MemberBuilder, State, Stored, Weights
from nnunet_semisup.inference.uncertainty import mean_of
from nnunet_semisup.networks.planned import PlannedNetwork

Member = int | Literal["mean"]
Spread = Literal["members", "folds", "weights", "mirrors"]


@dataclass(frozen=True)
class Choice:
    """Say what predicts.

    Attributes:
        weights: of the network.
        member: number of the member, 0 for the first, or ``mean``.
        spread: whose predictions the uncertainty is of; ``None``: there is none.
    """

    weights: Weights = "default"
    member: Member = 0
    spread: Spread | None = None


class Mirrored(nn.Module):
    """Predict from the mirrored image, and mirror back.

    Args:
        network: maps images to logits.
        axes: of the tensors, that are mirrored.
    """

    def __init__(self, network: nn.Module, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, *spatial)`` to logits ``(B, K, *spatial)``."""
        return self.network(x.flip(self.axes)).flip(self.axes)


@dataclass(frozen=True)
class Voter:
    """Hold one of several predictions.

    Attributes:
        network: that predicts.
        state: its weights.
        axes: of the image that are mirrored; ``None``: as nnU-Net does.
    """

    network: Any
    state: State
    axes: tuple[int, ...] | None = None


class SemisupPredictor(nnUNetPredictor):
    """Predict as nnU-Net does; by default with its very network and weights.

    Attributes:
        choice: what predicts; set before the model is read.
        is_done: tells of a case's truncated output path whether nothing of it is missing.
        part: number of the part of the cases to predict, from 0, and how many parts there are.
    """

    choice = Choice()
    is_done: Callable[[str], bool] | None = None
    part: tuple[int, int] = 0, 1
    use_mirroring: bool
    _stored: list[Stored]

    def initialize_from_trained_model_folder(
        self, model_training_output_dir: str, use_folds: Any, checkpoint_name: str
    ) -> None:
        """Read a model as nnU-Net does, then take the weights and the member that were chosen."""
        super().initialize_from_trained_model_folder(
            model_training_output_dir, use_folds, checkpoint_name
        )
        if self.choice == Choice():
            return
        folder = Path(model_training_output_dir)
        self._stored = [Stored.read(folder / f"fold_{f}" / checkpoint_name) for f in use_folds]
        if self.choice.weights != "default":
            self.list_of_parameters = [one.weights(self.choice.weights) for one in self._stored]
        if self.choice.member != 0:
            builder, member = self.builder, self.choice.member
            self.list_of_parameters = [builder.state(one, member) for one in self._stored]
            self.network = builder.network(member)

    @functools.cached_property
    def builder(self) -> MemberBuilder:
        """Return what builds the members of this model."""
        labels = self.label_manager
        channels = determine_num_input_channels(
            self.plans_manager, self.configuration_manager, self.dataset_json
        )
        plan = PlannedNetwork(
            self.plans_manager,
            self.configuration_manager,
            channels,
            labels.num_segmentation_heads,
            False,
        )
        cls = recursive_find_trainer_class_by_name(self._stored[0].trainer)
        return MemberBuilder(cls, plan, labels.has_regions)

    def _manage_input_and_output_lists(
        self,
        source: Any,
        output: Any,
        previous: Any = None,
        overwrite: bool = True,
        part: int = 0,
        parts: int = 1,
        *rest: Any,
    ) -> Any:
        """Return nnU-Net's lists; of a continued prediction, without cases that are whole.

        Without processes (``-npp 0 -nps 0``) nnU-Net 2.8 predicts all parts.
        """
        cases = super()._manage_input_and_output_lists
        if overwrite or self.is_done is None:
            return cases(source, output, previous, overwrite, *self.part, *rest)
        lists = cases(source, output, previous, True, *self.part, *rest)
        todo = [i for i, truncated in enumerate(lists[1]) if not self.is_done(truncated)]
        print(f"cases done: {len(lists[1]) - len(todo)}, left: {len(todo)}")
        return tuple([one[i] for i in todo] for one in lists)

    # The mean of several predictions.

    @torch.inference_mode()
    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """Return nnU-Net's logits ``(K, *spatial)``, and behind them those of the mean, if asked.

        ``data`` is ``(C, *spatial)``; the result is on the CPU, in half precision.
        """
        logits: Tensor = super().predict_logits_from_preprocessed_data(data)
        if self.choice.spread is None:
            return logits
        mean = self.mean_logits(data)
        return torch.cat([logits, mean.to(logits.dtype)])

    @torch.inference_mode()
    def mean_logits(self, data: Tensor) -> Tensor:
        """Return logits ``(K, *spatial)`` of the mean of the spread predictions, float32."""
        return mean_of(self._predictions(data), self.label_manager.has_regions)

    def _predictions(self, data: Tensor) -> Iterator[Tensor]:
        """Yield the logits of each prediction; a further network is there for its turn alone."""
        own, mirroring = self.network, self.use_mirroring
        for voter in self._voters():
            getattr(voter.network, "_orig_mod", voter.network).load_state_dict(voter.state)
            self.network = voter.network
            if voter.axes is not None:
                self.network, self.use_mirroring = Mirrored(voter.network, voter.axes), False
            try:
                yield self.predict_sliding_window_return_logits(data).to("cpu")
            finally:
                self.network, self.use_mirroring = own, mirroring

    def _voters(self) -> Iterator[Voter]:
        own, first, spread = self.network, self._stored[0], self.choice.spread
        if spread == "members":
            for number in range(first.number_of_members):
                yield Voter(self.builder.network(number), self.builder.state(first, number))
        elif spread == "folds":
            for state in self.list_of_parameters:
                yield Voter(own, state)
        elif spread == "weights":
            yield Voter(own, first.weights("student"))
            yield Voter(own, first.weights("teacher"))
        else:
            axes = [axis + 2 for axis in self.allowed_mirroring_axes or ()]
            for number in range(len(axes) + 1):
                for chosen in itertools.combinations(axes, number):
                    yield Voter(own, self.list_of_parameters[0], chosen)
