"""Class texts for any trainer: the interaction at the bottleneck and the semantic alignment.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382: TMR (section 2.1) and CSA (section 2.2).

A trainer takes this up by naming it before its own base, by asking for :meth:`step_text` once a
step, by passing that to the network and by adding :meth:`alignment_terms`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation.class_texts import TEMPLATE
from nnunet_semisup.losses.text_alignment import semantic_alignment
from nnunet_semisup.networks.multiplanar import READINGS
from nnunet_semisup.networks.text_unet import TEXT_DIM, TextTrainingNetwork, TextUNet
from nnunet_semisup.trainers.base import SemiSupervisedTrainer
from nnunet_semisup.trainers.batches import Terms, Unlabeled
from nnunet_semisup.trainers.class_text import MODELS, PROMPTS, ClassText, check_text, class_text
from nnunet_semisup.trainers.hyperparameters import require_one_of, require_range


class TextGuidance(SemiSupervisedTrainer):
    """Texts at the bottleneck of the predicting network, and their alignment with its features.

    The text model, if any, is held here and never by the network: its features travel as a buffer.
    """

    predicts_with_plain_network: ClassVar[bool] = False
    two_decoders: ClassVar[bool] = False

    text_model: str = "clip"
    """``clip`` ([0]), ``biomedclip``, ``features`` (a file), ``random`` (a control) or ``none``."""
    text_prompt: str = "learned"
    """``learned`` tokens before the class name ([0], eq. 1) or a fixed ``template``."""
    text_template: str = TEMPLATE
    """Fixed prompt; ``{}`` stands for the class."""
    prompt_length: int = 4
    """Number of learned tokens ([0], section 3.1)."""
    prompt_per_class: bool = True
    """Every class learns its own tokens (released code) or all share them (CoOp)."""
    text_reading: str = "paper"
    """Reading of equation 2: ``paper``, ``gate``, ``official``, ``visual_query``."""
    text_alignment_weight: float = 0.1
    """Weight of the semantic alignment; 1 in [0], whose vectors are not normalised."""

    class_text: ClassText | None

    @classmethod
    def check_hyperparameters(cls, values: dict[str, Any]) -> None:
        super().check_hyperparameters(values)
        require_one_of(values, "text_model", MODELS)
        require_one_of(values, "text_prompt", PROMPTS)
        require_one_of(values, "text_reading", READINGS)
        if "{}" not in values["text_template"]:
            raise UserError(
                f"text_template={values['text_template']} must contain {{}}, where the class goes."
            )
        require_range(values, "prompt_length", 1, 32)
        require_range(values, "text_alignment_weight", 0.0, float("inf"))

    @classmethod
    def check_inputs(
        cls,
        values: dict[str, Any],
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
    ) -> None:
        """As the base; also refuses texts and text models that cannot be had."""
        super().check_inputs(values, plans, configuration, fold, dataset_json)
        check_text(values["text_model"], dataset_json, plans["dataset_name"])

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The plan's network with class texts at its bottleneck; all that prediction needs."""
        base = nnUNetTrainer.build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        grid = list(configuration_manager.patch_size)
        for stride in configuration_manager.pool_op_kernel_sizes:
            grid = [-(-size // step) for size, step in zip(grid, stride, strict=True)]
        return TextUNet(base, grid, num_output_channels)

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Fits the interaction to the texts at hand and adds what only training needs."""
        assert self.seed is not None
        self.class_text = class_text(self, self.seed)
        if self.class_text is None:
            predictor.set_text(None)
        else:
            features = self.class_text.features
            if features.shape[-1] != TEXT_DIM or self.text_reading != predictor.interaction.reading:
                predictor.set_text(features.shape[-1], self.text_reading)
            predictor.text_features.copy_(features)
            if all(size == 1 for size in predictor.grid):
                self.print_to_log_file(
                    "The bottleneck is a single voxel: text acts through the alignment only"
                )
        return TextTrainingNetwork(predictor, self.two_decoders)

    def configure_optimizers(self) -> Any:
        """As nnU-Net's, with the prompts' tokens."""
        optimizer, schedule = super().configure_optimizers()
        if self.class_text is not None and self.class_text.prompts is not None:
            optimizer.add_param_group({"params": list(self.class_text.prompts.parameters())})
        return optimizer, schedule

    def step_text(self) -> Tensor | None:
        """``(K, D)`` unit vectors for every pass of this step, or ``None`` without text.

        Learned ones are a leaf; their tokens get the gradient of all passes at once.
        """
        if self.class_text is None:
            return None
        text = self.class_text.leaf()
        self.student.text_features.copy_(text.detach())
        return text

    def after_backward(self) -> None:
        """Hands the texts' gradient on to the learned tokens."""
        super().after_backward()
        if self.class_text is not None:
            self.class_text.backward(self.is_ddp)

    def alignment_terms(
        self,
        name: str,
        logits: Any,
        visual: Tensor | None,
        text: Tensor | None,
        valid: Tensor | None = None,
    ) -> Terms:
        """The semantic alignment of one pass, summed over decoders; empty without text.

        Args:
            name: of the pass, for the log.
            logits: of each decoder.
            visual: ``(B, D, *grid)`` projected features.
            text: what :meth:`step_text` gave.
            valid: ``(B, 1, *spatial)`` bool, false in padding.
        """
        if text is None or visual is None or self.text_alignment_weight == 0:
            return {}
        losses = [
            semantic_alignment(visual, self.full_resolution(one), text, self.regions, valid)
            for one in logits
        ]
        return {f"alignment_{name}": self.text_alignment_weight * torch.stack(losses).sum()}

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """As nnU-Net; prediction sees the texts as learned so far."""
        super().on_train_epoch_end(train_outputs)
        if self.class_text is not None:
            self.student.text_features.copy_(self.class_text.current())

    @torch.no_grad()
    def end_epoch(self, unlabeled: Unlabeled) -> dict[str, float]:
        """Measures what the texts do to the output.

        ``text_sensitivity``: relative change of the logits when other texts are put in.
        """
        result = super().end_epoch(unlabeled)
        student = self.student
        if self.class_text is None:
            return result
        image = unlabeled.image[:1]
        own = self.full_resolution(student(image)).float()
        assert self.seed is not None
        # Another seed than the one that text_model=random draws its vectors with.
        generator = torch.Generator().manual_seed(self.seed + 1)
        other = torch.randn(student.text_features.shape, generator=generator).to(self.device)
        changed = self.full_resolution(student(image, F.normalize(other, dim=-1))).float()
        sensitivity = (changed - own).norm() / own.norm().clamp_min(1e-12)
        return {**result, "text_sensitivity": float(sensitivity)}

    def extra_state(self) -> dict[str, Any]:
        state = super().extra_state()
        state["text"] = None if self.class_text is None else self.class_text.state_dict()
        return state

    def load_extra_state(self, state: dict[str, Any]) -> None:
        if (state["text"] is None) != (self.class_text is None):
            raise UserError(
                f"The checkpoint was trained {'without' if state['text'] is None else 'with'} "
                "text. Continue it with the same text_model, or start anew without --c."
            )
        if self.class_text is not None:
            self.class_text.check_state(state["text"])
        super().load_extra_state(state)
        if self.class_text is not None:
            self.class_text.load_state_dict(state["text"])

    def configuration(self) -> dict[str, Any]:
        """As the base; also the texts in use."""
        texts = None if self.class_text is None else self.class_text.texts
        return {**super().configuration(), "texts": texts}
