"""Class texts for trainers with the plan's network: interaction and semantic alignment.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382: TMR (section 2.1) and CSA (section 2.2).

A trainer takes this up by naming it before its own base, by asking for :meth:`step_text` once a
step, by passing that to the network and by adding :meth:`alignment_terms`.
"""

from __future__ import annotations

from os.path import isfile, join
from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError, exit_code_two_in_commands
from nnunet_semisup.foundation import text_tower
from nnunet_semisup.foundation.class_texts import TEMPLATE
from nnunet_semisup.losses.text_alignment import semantic_alignment
from nnunet_semisup.networks.multiplanar import READINGS
from nnunet_semisup.networks.text_unet import TEXT_DIM, TextTrainingNetwork, TextUNet
from nnunet_semisup.training.batches import Terms, Unlabeled
from nnunet_semisup.training.checkpoint import KEY, read_checkpoint
from nnunet_semisup.training.class_text import MODELS, PROMPTS, ClassText, check_text, class_text
from nnunet_semisup.training.data_streams import is_trained
from nnunet_semisup.training.hyperparameters import read_overrides, require_one_of, require_range
from nnunet_semisup.training.loop import SemiSupervisedTrainer


class TextGuidance(SemiSupervisedTrainer):
    """Texts at the bottleneck of the predicting network, and their alignment with its features.

    The text model, if any, is held here and never by the network: its features travel as a buffer.
    """

    two_decoders: ClassVar[bool] = False

    text_model: str = "clip"
    """``clip`` ([0]), ``biomedclip``, ``features`` (a file), ``random`` (its control), ``none``."""
    text_prompt: str = "learned"
    """Of a text model: ``learned`` tokens before the name ([0], eq. 1) or a fixed ``template``."""
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
    _loading: dict[str, Any] | None = None

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
        if (
            values["text_model"] == "features"
            and read_overrides(cls).get("text_prompt") == "learned"
        ):
            raise UserError(
                "text_prompt=learned needs the text model itself, and text_model=features has only "
                "vectors that stay as they are. Leave text_prompt away, or take text_model=clip or "
                "text_model=biomedclip."
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
        """As the base; also refuses texts and text models that cannot be had.

        A fold that is already trained has its texts in the checkpoint (``--val``).
        """
        super().check_inputs(values, plans, configuration, fold, dataset_json)
        if not is_trained(cls.__name__, plans, configuration, fold):
            check_text(values, dataset_json, plans["dataset_name"])

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
        self.class_text = self.stored_text() if self.has_ended() else class_text(self, self.seed)
        if self.class_text is None:
            predictor.set_text(None)
        else:
            features = self.class_text.features
            if features.shape[-1] != TEXT_DIM or self.text_reading != predictor.interaction.reading:
                predictor.set_text(features.shape[-1], self.text_reading)
            predictor.text_features.copy_(features)
            single = all(size == 1 for size in predictor.grid)
            if single and self.text_reading != "visual_query":
                self.print_to_log_file(
                    "The bottleneck is a single voxel: text acts through the alignment only"
                )
        return TextTrainingNetwork(predictor, self.two_decoders)

    def has_ended(self) -> bool:
        """Whether a checkpoint is being loaded with which nothing will be trained."""
        if self._loading is None:
            return False
        if self._loading["current_epoch"] >= self.num_epochs:
            return True
        return not self.continues and isfile(join(self.output_folder, "checkpoint_final.pth"))

    def stored_text(self) -> ClassText | None:
        """The texts of the checkpoint that is being loaded; no text model is needed for them."""
        assert self._loading is not None
        state = self._loading[KEY]["text"]
        if state is None:
            return None
        stored = ClassText.from_state(state)
        stored.to(self.device)
        return stored

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

    def end_epoch(self, unlabeled: Unlabeled) -> dict[str, float]:
        """Measures what the texts do to the first patch of the epoch's last unlabeled batch.

        ``text_interaction``: norm of what the interaction adds to the deepest features over theirs.
        ``text_share``: relative change of what it adds when other texts are put in.
        ``text_sensitivity``: relative change of the logits then.
        """
        result = super().end_epoch(unlabeled)
        student = self.student
        if self.class_text is None:
            return result
        assert self.seed is not None
        # Another seed than the one that text_model=random draws its vectors with.
        generator = torch.Generator().manual_seed(self.seed + 1)
        other = torch.randn(student.text_features.shape, generator=generator).to(self.device)
        added, logits = [], []
        # Half precision would round away what texts change.
        with torch.autocast(self.device.type, enabled=False):
            for text in (student.text_features, F.normalize(other, dim=-1)):
                features, visual = student.encode(unlabeled.image[:1], text)
                added.append(features[-1] - visual)
                logits.append(self.full_resolution(student.decoder(features)))
        return {
            **result,
            "text_interaction": _relative(added[0], visual),
            "text_share": _relative(added[1] - added[0], added[0]),
            "text_sensitivity": _relative(logits[1] - logits[0], logits[0]),
        }

    def extra_state(self) -> dict[str, Any]:
        state = super().extra_state()
        state["text"] = None if self.class_text is None else self.class_text.state_dict()
        return state

    @exit_code_two_in_commands()
    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """As the base; a training that has ended is loaded without its text model."""
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = read_checkpoint(checkpoint, self.device, self.continues)
        self._loading = checkpoint
        try:
            super().load_checkpoint(checkpoint)
        finally:
            self._loading = None

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self._check_text_settings(state["configuration"])
        if self.class_text is not None:
            self.class_text.check_state(state["text"])
        super().load_extra_state(state)
        if self.class_text is not None:
            self.class_text.load_state_dict(state["text"])

    def _check_text_settings(self, then: dict[str, Any]) -> None:
        """Refuses a run whose interaction or prompts are made differently from the checkpoint's."""
        names = ["text_model"]
        if self.text_model != "none":
            names.append("text_reading")
        if self.text_model in text_tower.MODELS:
            names.append("text_prompt")
            if self.text_prompt == "learned":
                names += ["prompt_length", "prompt_per_class"]
        for name in names:
            if then[name] != getattr(self, name):
                raise UserError(
                    f"The checkpoint was trained with {name}={then[name]}, but this run has "
                    f"{name}={getattr(self, name)}. Continue with the same, or start anew without "
                    "--c."
                )

    def configuration(self) -> dict[str, Any]:
        """As the base; also the texts in use, who encoded them, and whether prompts learn."""
        text = self.class_text
        return {
            **super().configuration(),
            "texts": None if text is None else text.texts,
            "text_encoder": None if text is None else text.encoder,
            "text_width": None if text is None else text.features.shape[-1],
            "learned_prompts": text is not None and text.prompts is not None,
        }


def _relative(change: Tensor, whole: Tensor) -> float:
    """Norm of ``change`` over that of ``whole``."""
    return float(change.norm() / whole.norm().clamp_min(1e-12))
