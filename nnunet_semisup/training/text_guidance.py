"""Class texts as a guest of any method: interaction and semantic alignment.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382: TMR (section 2.1) and CSA (section 2.2).

A trainer takes this up by naming it before the method: ``class X(TextGuidance, Method)``. Every
pass of the student then sees the texts and brings the term that aligns its features with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from os.path import isfile, join
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import text_tower
from nnunet_semisup.foundation.class_texts import TEMPLATE
from nnunet_semisup.losses.text_alignment import semantic_alignment
from nnunet_semisup.networks.evaluating import evaluating
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.networks.text_unet import TextUNet, WithText, text_readers
from nnunet_semisup.training.batches import Terms, Unlabeled
from nnunet_semisup.training.checkpoint import KEY
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Between, Weight
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer
from nnunet_semisup.training.settings import Settings
from nnunet_semisup.training.training_texts import ClassText, Wanted, check_text, class_text

TextReading = Literal["paper", "gate", "official", "visual_query", "fusion"]
"""Names of :data:`nnunet_semisup.networks.text_unet.READINGS`."""
POOLED = ("paper", "gate", "official")
"""Readings in which a text acts by where it attends, which is nowhere on a single voxel."""


class TextGuidance(SemiSupervisedTrainer):
    """Bring texts to the bottleneck of the predicting network, and align its features with them.

    The text model, if any, is held here and never by the network: its features travel as a buffer.
    """

    text_model: Literal["clip", "biomedclip", "features", "random", "none"] = "clip"
    """``clip`` ([0]), ``biomedclip``, ``features`` (a file), ``random`` (its control), ``none``."""
    text_prompt: Literal["learned", "template"] = "learned"
    """Of a text model: ``learned`` tokens before the name ([0], eq. 1) or a fixed ``template``."""
    text_template: str = TEMPLATE
    """Fixed prompt; ``{}`` stands for the class."""
    prompt_length: Annotated[int, Between(1, 32)] = 4
    """Number of learned tokens ([0], section 3.1)."""
    prompt_per_class: bool = True
    """Every class learns its own tokens (released code) or all share them (CoOp)."""
    text_reading: TextReading = "paper"
    """Reading of equation 2: ``paper``, ``gate``, ``official``, ``visual_query``; or ``fusion``."""
    text_alignment_weight: Weight = 0.1
    """Weight of the semantic alignment; 1 in [0], whose vectors are not normalised."""

    class_text: ClassText | None
    _stored: ClassText | None = None
    _has_ended = False
    _text: Tensor | None = None

    def check_settings(self, settings: Settings) -> None:
        """Refuse templates that are not read or name no class, and prompts without a model."""
        super().check_settings(settings)
        if settings.values.get("one_pass"):
            raise UserError(
                "one_pass=True passes labeled and unlabeled patches at once, and texts are aligned "
                "with each of them alone. Leave one_pass away."
            )
        template = settings.values["text_template"]
        if "{}" not in template:
            raise UserError(f"text_template={template} must contain {{}}, where the class goes.")
        of_file = settings.values["text_model"] == "features"
        if of_file and settings.given.get("text_prompt") == "learned":
            raise UserError(
                "text_prompt=learned needs the text model itself, and text_model=features has only "
                "vectors that stay as they are. Leave text_prompt away, or take text_model=clip or "
                "text_model=biomedclip."
            )
        read = settings.values["text_model"] in text_tower.MODELS
        read = read and settings.values["text_prompt"] == "template"
        if "text_template" in settings.given and not read:
            raise UserError(
                "text_template is read with text_prompt=template and text_model=clip or "
                "text_model=biomedclip alone. Set these beside it; a features file has the prompt "
                "that nnUNetv2_semisup_text_features was given by --template."
            )

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse texts and text models that cannot be had, too.

        A fold that is already trained has its texts in the checkpoint (``--val``).
        """
        super().check_inputs(inputs)
        if not inputs.trained:
            wanted = _wanted(inputs.settings.values)
            check_text(wanted, inputs.dataset_json, inputs.plans["dataset_name"])

    # Networks.

    @classmethod
    def extend_network(cls, network: Any, plan: PlannedNetwork) -> nn.Module:
        """Let class texts interact with the bottleneck; all that prediction needs."""
        network = super().extend_network(network, plan)
        configuration = plan.configuration_manager
        grid = list(configuration.patch_size)
        for stride in configuration.pool_op_kernel_sizes:
            grid = [-(-size // step) for size, step in zip(grid, stride, strict=True)]
        return TextUNet(network, grid, plan.output_channels, reading=cls.text_reading)

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Wrap the method's training network, fitted to the texts at hand."""
        return self.with_text(super().build_training_network(predictor))

    def with_text(self, network: Any) -> nn.Module:
        """Return a training network, or a predictor alone, with texts in each of its passes."""
        assert self.seed is not None
        readers = text_readers(network)
        for reader in readers:
            reader.in_training = True
        self.class_text = self._stored if self._has_ended else self._text_at_hand(self.seed)
        if self.class_text is None:
            for reader in readers:
                reader.set_text(None)
            return network
        self.class_text.to(self.device)
        if self.is_ddp:
            self.class_text.broadcast()
        for reader in readers:
            reader.take_text(self.class_text.features, self.text_reading)
        if all(size == 1 for size in readers[0].grid) and self.text_reading in POOLED:
            self.print_to_log_file(
                "The bottleneck is a single voxel: text acts through the alignment only"
            )
        return WithText(network)

    def _text_at_hand(self, seed: int) -> ClassText | None:
        wanted = _wanted({name: getattr(self, name) for name in self.settings.kinds})
        name = self.plans_manager.dataset_name
        return class_text(wanted, self.dataset_json, name, seed, self.print_to_log_file)

    def trained_outside(self) -> nn.ModuleDict:
        """Return what the base gives, with the learner of prompts."""
        outside = super().trained_outside()
        if self.class_text is not None and self.class_text.prompts is not None:
            outside["prompts"] = self.class_text.prompts
        return outside

    # A step.

    def step_text(self) -> Tensor | None:
        """Return ``(K, D)`` unit vectors for every pass of this step, or ``None`` without text.

        Learned ones are a leaf; their tokens get the gradient of all passes at once.
        """
        if self.class_text is not None and self._text is None:
            self._text = self.class_text.leaf()
            self.student.text_features.copy_(self._text.detach())
        return self._text

    def student_pass(
        self, image: Tensor, name: str, valid: Tensor | None = None, **how: Any
    ) -> Pass:
        """Run it with the texts of the step, and align them, summed over members."""
        text = self.step_text()
        if text is None:
            return super().student_pass(image, name, valid, **how)
        seen = super().student_pass(image, name, valid, text=text, **how)
        if self.text_alignment_weight == 0:
            return seen
        return seen._replace(terms={**seen.terms, **self.aligned_terms(seen, name, text, valid)})

    def aligned_terms(self, seen: Pass, name: str, text: Tensor, valid: Tensor | None) -> Terms:
        """Return the term that aligns a pass with the texts, where its weight is not 0.

        Args:
            seen: the pass, with the projected features as guest ``visual``.
            name: as of :meth:`student_pass`.
            text: ``(K, D)`` unit vectors.
            valid: as of :meth:`student_pass`.
        """
        visual = seen.guests["visual"]
        # The features are those of the first network; others have their own.
        members = seen.members if len(self.training_network.readers) == 1 else seen.members[:1]
        losses = [
            semantic_alignment(
                visual, self.full_resolution(member.logits), text, self.regions, valid
            )
            for member in members
        ]
        return {f"alignment_{name}": self.text_alignment_weight * torch.stack(losses).sum()}

    def after_backward(self) -> None:
        """Hand the texts' gradient on to the learned tokens."""
        super().after_backward()
        self._text = None
        if self.class_text is not None:
            self.class_text.backward()

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring a teacher's texts, which are averages of unit vectors, back to unit length."""
        super().after_step()
        teacher = getattr(self, "teacher", None)
        if teacher is not None and self.class_text is not None and self.class_text.prompts:
            texts = getattr(teacher.module, "predictor", teacher.module).text_features
            texts.copy_(F.normalize(texts, dim=-1))

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Let prediction see the texts as learned so far."""
        super().on_train_epoch_end(train_outputs)
        if self.class_text is not None:
            self.student.text_features.copy_(self.class_text.current())

    def end_epoch(self, unlabeled: Unlabeled) -> dict[str, float]:
        """Measure what the texts do to the first patch of the epoch's last unlabeled batch.

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
        # Half precision would round away what texts change, and dropout would change more.
        with evaluating(student), torch.autocast(self.device.type, enabled=False):
            for text in (student.text_features, F.normalize(other, dim=-1)):
                features, visual = student.encode_with(unlabeled.image[:1], text)
                added.append(features[-1] - visual)
                logits.append(self.full_resolution(student.decoder(features)))
        return {
            **result,
            "text_interaction": _relative(added[0], visual),
            "text_share": _relative(added[1] - added[0], added[0]),
            "text_sensitivity": _relative(logits[1] - logits[0], logits[0]),
        }

    # Checkpoints.

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See whether the training has ended, for which no text model is needed, too."""
        super().check_checkpoint(checkpoint)
        state = checkpoint[KEY]["text"]
        ended = checkpoint["current_epoch"] >= self.num_epochs_of(checkpoint[KEY])
        final = isfile(join(self.output_folder, "checkpoint_final.pth"))
        self._has_ended = ended or (not self.continues and final)
        self._stored = None if state is None else ClassText.from_state(state)

    def num_epochs_of(self, state: dict[str, Any]) -> int:
        """Return the epochs of the run when it goes on with a checkpoint's state."""
        values = self.settings.continuing(state["configuration"]).values
        return int(values.get("num_epochs", self.num_epochs))

    def extra_state(self) -> dict[str, Any]:
        text = None if self.class_text is None else self.class_text.state_dict()
        return {**super().extra_state(), "text": text}

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        self._check_text_settings(state["configuration"])
        if self.class_text is not None:
            self.class_text.check_state(state["text"])
        super().load_extra_state(state, checkpoint)

    def _check_text_settings(self, then: dict[str, Any]) -> None:
        """Refuse a run whose interaction or prompts are made differently from the checkpoint's."""
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
        """Return the record with the texts in use, who encoded them, and whether prompts learn."""
        text = self.class_text
        return {
            **super().configuration(),
            "texts": None if text is None else text.texts,
            "text_encoder": None if text is None else text.encoder,
            "text_width": None if text is None else text.features.shape[-1],
            "learned_prompts": text is not None and text.prompts is not None,
        }


def _wanted(values: Mapping[str, Any]) -> Wanted:
    names = ("text_model", "text_prompt", "text_template", "prompt_length", "prompt_per_class")
    return Wanted(*(values[name] for name in names))


def _relative(change: Tensor, whole: Tensor) -> float:
    """Return the norm of ``change`` over that of ``whole``."""
    return float(change.norm() / whole.norm().clamp_min(1e-12))
