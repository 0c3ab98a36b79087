"""VQ-Seg: perturbing the student's features by swapping codes of a learned codebook.

[0] VQ-Seg, NeurIPS 2025, arXiv 2601.10124.

Per step, with q the quantizer of the deep features, q' the same after code swaps (QPM):
    labeled    x_l:  L_sup(D_s(q(x_l)), y) + L1(D_i(q(x_l)), x_l)
    teacher    x_u:  y~ = D_s(q(x_u)), kept where confident
    student    x_a = strong(x_u):  L_seg(D_s(q'(x_a)), y~) + L1(D_i(q(x_a)), x_a)
    plus alignment of q's features with a frozen foundation model, the codebook's commitment and
    usage losses.

Deviates from [0]: 3D as well as 2D; the plan's U-Net instead of DINOv2 with DPT, quantized at the
deep stages only (the shallow skips stay continuous); code swaps act on the strong view unless
``qpm_view`` says ``weak``; the swap distribution is calibrated (see networks/qpm.py); a ramp, a
confidence threshold, CutMix and soft Dice on pseudo-labels; the teacher predicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from nnunet_semisup.errors import exit_code_two_in_commands
from nnunet_semisup.foundation import dinov2
from nnunet_semisup.losses.alignment import slicewise_infonce
from nnunet_semisup.losses.consistency import PseudoLabel
from nnunet_semisup.losses.quantization import reconstruction_difference, usage_entropy
from nnunet_semisup.losses.schedules import linear_rampup
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.networks.vq_unet import VQParts, VQTrainingNetwork, quantized_unet
from nnunet_semisup.trainers.pseudo_label import nnUNetTrainerPseudoLabel
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.codebooks import CodebookDiagnostics, Epoch
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.quantizer_warmup import QuantizerWarmup
from nnunet_semisup.training.ranges import AtLeast, Count, Fraction, Weight


class nnUNetTrainerVQSeg(nnUNetTrainerPseudoLabel):
    """Train with pseudo-labels under quantized perturbation and reconstruction ([0], 3.5)."""

    qpm_epsilon: Fraction = 0.7
    """Share of tokens whose code is swapped ([0], table 3); 0 keeps the quantizer without QPM."""
    qpm_mode: Literal["calibrated", "paper", "official", "uniform"] = "calibrated"
    """``calibrated``, ``paper``, ``official`` or ``uniform`` (a control)."""
    qpm_perplexity: Annotated[float, AtLeast(1)] = 32.0
    """Effective number of codes that a code may turn into, in mode ``calibrated``."""
    qpm_view: Literal["strong", "weak"] = "strong"
    """``strong``: swaps on the strong view; ``weak``: on the weak one in its own pass ([0])."""
    qpm_rampup: Fraction = 0.2
    """Fraction of training over which epsilon rises linearly."""
    calibrate_every: Count = 50
    """Steps between two calibrations of the temperature, and between two fits of the codes."""
    quantizer_warmup: Fraction = 0.05
    """Fraction of training over which quantized features replace continuous ones."""
    codebook_fit: bool = True
    """Fit the codes to the tokens in closed form during that warm-up."""
    reconstruction_weight: Weight = 1.0
    """Weight of the L1 reconstruction ([0], section 3.3)."""
    commitment_weight: Weight = 0.1
    """Weight of codebook and commitment loss (released code)."""
    usage_weight: Weight = 0.1
    """Weight of the usage entropy (released code)."""
    usage_tokens: Count = 1024
    """Tokens a pass on which the usage entropy is computed."""
    foundation_model: Literal["none", "dinov2", "random"] = "none"
    """Alignment reference: ``none``, ``dinov2`` ([0]), ``random`` (tests only)."""
    alignment_weight: Weight = 5.0
    """Weight of the alignment ([0], table 3)."""
    alignment_temperature: Annotated[float, AtLeast(1e-3)] = 0.07
    """Temperature of the alignment; not stated in [0]."""

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse a foundation model whose weights cannot be had, too."""
        super().check_inputs(inputs)
        if inputs.settings.values["foundation_model"] == "dinov2" and not inputs.trained:
            dinov2.weights_location()

    @classmethod
    def extend_network(cls, network: Any, plan: PlannedNetwork) -> nn.Module:
        """Quantize the deep stages of the plan's network."""
        return quantized_unet(super().extend_network(network, plan), plan.configuration_manager)

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Add the image decoder and, with a foundation model, the adapter to its features."""
        channels = self.num_input_channels if self.reconstruction_weight > 0 else None
        width = None if self.foundation_model == "none" else dinov2.WIDTH
        return VQTrainingNetwork(predictor, channels, width)

    def initialize(self) -> None:
        """Build, and prepare the quantizers' course and diagnostics."""
        super().initialize()
        self.foundation: dinov2.FrozenDINOv2 | None = None
        self.warmup = QuantizerWarmup(
            self.quantizer_warmup,
            self.calibrate_every,
            self.codebook_fit,
            self.qpm_perplexity if self.qpm_mode == "calibrated" else None,
        )
        self.codebooks = CodebookDiagnostics(self.student.quantizers, self.device)

    @exit_code_two_in_commands()
    def on_train_start(self) -> None:
        """Load the foundation model, then begin."""
        if not self.was_initialized:
            self.initialize()
        if self.foundation_model != "none":
            pretrained = self.foundation_model == "dinov2"
            self.foundation = dinov2.FrozenDINOv2(pretrained).to(self.device)
        super().on_train_start()

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        self.warmup.update(self.student, unlabeled.image, self.step_number, self.progress)
        yield self.labeled_terms(labeled)

        weight = self.current_unlabeled_weight
        if weight == 0:
            return
        epsilon = self.qpm_epsilon * linear_rampup(self.progress, self.qpm_rampup)
        weak_label = self.teacher_label(unlabeled)
        image, label, _ = self.strong_pair(unlabeled, weak_label)
        confident = {"_confident": label.weight.mean()}
        if self.qpm_view == "strong":
            yield self._unlabeled_terms("unlabeled", image, label, weight, epsilon) | confident
            return
        weight = 0.5 * weight
        yield self._unlabeled_terms("unlabeled", image, label, weight, 0.0) | confident
        yield self._unlabeled_terms("weak", unlabeled.image, weak_label, weight, epsilon)

    def _unlabeled_terms(
        self, name: str, image: Tensor, label: PseudoLabel, weight: float, epsilon: float
    ) -> Terms:
        """Return the weighted terms of one pass that swaps a share ``epsilon`` of the codes."""
        seen = self.student_pass(image, name, epsilon=epsilon)
        loss = self.pseudo_label_loss(self.full_resolution(seen.logits), label)
        of_pass = {n: t if n[0] == "_" else weight * t for n, t in seen.terms.items()}
        own = "consistency" if name == "unlabeled" else f"consistency_{name}"
        return {own: weight * loss, **of_pass}

    def student_pass(
        self, image: Tensor, name: str, valid: Tensor | None = None, **how: Any
    ) -> Pass:
        """Run it with the terms of codebook, reconstruction and alignment."""
        epsilon = how.pop("epsilon", 0.0)
        share = None if not epsilon else torch.full((), epsilon, device=self.device)
        how = {**how, "epsilon": share, "mode": self.qpm_mode}
        seen = super().student_pass(image, name, valid, **how)
        parts: VQParts = seen.parts
        terms = dict(seen.terms)
        commitment = torch.stack([q.commitment for q in parts.quantized]).mean()
        terms[f"commitment_{name}"] = self.commitment_weight * commitment
        usage = [
            usage_entropy(part.tokens, quantizer.codebook, at_most=self.usage_tokens)
            for part, quantizer in zip(parts.quantized, self.student.quantizers, strict=True)
        ]
        terms[f"usage_{name}"] = self.usage_weight * torch.stack(usage).mean()
        if parts.image is not None:
            difference = reconstruction_difference(parts.image, image)
            terms[f"reconstruction_{name}"] = self.reconstruction_weight * difference
        if parts.adapted is not None:
            assert self.foundation is not None
            reference = self.foundation.of_grid(image, tuple(parts.adapted.shape[2:]))
            alignment = slicewise_infonce(parts.adapted, reference, self.alignment_temperature)
            terms[f"alignment_{name}"] = self.alignment_weight * alignment
        self.codebooks.count(parts.quantized)
        if share is not None:
            moved = [(q.perturbed != q.indices).float().mean() for q in parts.quantized]
            terms["_perturbed"] = torch.stack(moved).mean()
        return seen._replace(terms=terms)

    def end_epoch(self, unlabeled: Unlabeled) -> dict[str, float]:
        """Return codebook use and the output's sensitivity to swaps, and draw the pictures."""
        epoch = Epoch(
            self.current_epoch,
            self.num_epochs - 1,
            self.training_network,
            self.regions,
            self.qpm_epsilon,
            self.qpm_mode,
            Path(self.output_folder) if self.local_rank == 0 else None,
            self.warmup.mix >= 1,
            self.print_to_log_file,
        )
        return self.codebooks.finish_epoch(epoch, unlabeled)

    def extra_state(self) -> dict[str, Any]:
        own = {"diagnostics": self.codebooks.state_dict(), "quantizer_mix": self.warmup.mix}
        return {**super().extra_state(), **own}

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        super().load_extra_state(state, checkpoint)
        self.warmup.mix = state["quantizer_mix"]
        self.codebooks.load_state_dict(state["diagnostics"])
        if self.local_rank != 0:
            self.codebooks.reset()  # A checkpoint has the first rank's counts only.
