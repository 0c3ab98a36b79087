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
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.errors import exit_code_two_in_commands
from nnunet_semisup.foundation import dinov2
from nnunet_semisup.losses.alignment import patchwise_infonce
from nnunet_semisup.losses.quantization import usage_entropy
from nnunet_semisup.losses.schedules import linear_rampup
from nnunet_semisup.networks.codebook_fit import moments
from nnunet_semisup.networks.qpm import MODES
from nnunet_semisup.networks.vq_unet import (
    ReconstructionDecoder,
    VQTrainingNetwork,
    VQUNet,
    codebook_size,
    planned_stages,
    stage_tokens,
)
from nnunet_semisup.trainers.pseudo_label import nnUNetTrainerPseudoLabel
from nnunet_semisup.trainers.vqseg_diagnostics import CodebookDiagnostics
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.data_streams import is_trained
from nnunet_semisup.training.hyperparameters import require_one_of, require_range

FOUNDATION_MODELS = ("none", "dinov2", "random")
VIEWS = ("strong", "weak")


class nnUNetTrainerVQSeg(nnUNetTrainerPseudoLabel):
    """Pseudo-label consistency under quantized perturbation, with reconstruction ([0], 3.5)."""

    qpm_epsilon: float = 0.7
    """Share of tokens whose code is swapped ([0], table 3); 0 keeps the quantizer without QPM."""
    qpm_mode: str = "calibrated"
    """``calibrated``, ``paper``, ``official`` or ``uniform`` (a control)."""
    qpm_perplexity: float = 32.0
    """Effective number of codes that a code may turn into, in mode ``calibrated``."""
    qpm_view: str = "strong"
    """``strong``: swaps on the strong view; ``weak``: on the weak one in its own pass ([0])."""
    qpm_rampup: float = 0.2
    """Fraction of training over which epsilon rises linearly."""
    calibrate_every: int = 50
    """Steps between two calibrations of the temperature, and between two fits of the codes."""
    quantizer_warmup: float = 0.05
    """Fraction of training over which quantized features replace continuous ones."""
    codebook_fit: bool = True
    """Fit the codes to the tokens in closed form during that warm-up."""
    reconstruction_weight: float = 1.0
    """Weight of the L1 reconstruction ([0], section 3.3)."""
    commitment_weight: float = 0.1
    """Weight of codebook and commitment loss (released code)."""
    usage_weight: float = 0.1
    """Weight of the usage entropy (released code)."""
    usage_tokens: int = 1024
    """Tokens a pass on which the usage entropy is computed."""
    foundation_model: str = "none"
    """Alignment reference: ``none``, ``dinov2`` ([0]), ``random`` (tests only)."""
    alignment_weight: float = 5.0
    """Weight of the alignment ([0], table 3)."""
    alignment_temperature: float = 0.07
    """Temperature of the alignment; not stated in [0]."""

    @classmethod
    def check_hyperparameters(cls, values: dict[str, Any]) -> None:
        super().check_hyperparameters(values)
        require_one_of(values, "qpm_mode", MODES)
        require_one_of(values, "qpm_view", VIEWS)
        require_one_of(values, "foundation_model", FOUNDATION_MODELS)
        for name in ("qpm_epsilon", "qpm_rampup", "quantizer_warmup"):
            require_range(values, name, 0.0, 1.0)
        for name in ("reconstruction_weight", "commitment_weight", "usage_weight"):
            require_range(values, name, 0.0, float("inf"))
        require_range(values, "alignment_weight", 0.0, float("inf"))
        for name in ("qpm_perplexity", "calibrate_every", "usage_tokens"):
            require_range(values, name, 1.0, float("inf"))
        require_range(values, "alignment_temperature", 1e-3, float("inf"))

    @classmethod
    def check_inputs(
        cls,
        values: dict[str, Any],
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
    ) -> None:
        """As the base; also refuses a foundation model whose weights cannot be had.

        Where the fold is already trained, that is left to the start of a training: ``--val`` needs
        none.
        """
        super().check_inputs(values, plans, configuration, fold, dataset_json)
        if values["foundation_model"] == "dinov2" and not is_trained(
            cls.__name__, plans, configuration, fold
        ):
            dinov2.weights_location()

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The plan's network with quantized deep stages; all that prediction needs."""
        base = nnUNetTrainerPseudoLabel.build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        strides = configuration_manager.pool_op_kernel_sizes
        tokens = stage_tokens(configuration_manager.patch_size, strides)
        stages = planned_stages(configuration_manager.configuration, strides)
        return VQUNet(base, stages, [codebook_size(tokens[s]) for s in stages])

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Adds the image decoder and, with a foundation model, the adapter."""
        encoder, stages = predictor.encoder, predictor.stages
        decoder = adapter = None
        if self.reconstruction_weight > 0:
            decoder = ReconstructionDecoder(encoder, stages, self.num_input_channels)
        if self.foundation_model != "none":
            adapter = encoder.conv_op(encoder.output_channels[stages[0]], dinov2.WIDTH, 1)
        return VQTrainingNetwork(predictor, decoder, adapter)

    def initialize(self) -> None:
        """As the base; also prepares the diagnostics."""
        super().initialize()
        self.foundation: dinov2.FrozenDINOv2 | None = None
        self.quantizer_mix = 0.0
        self.diagnostics = CodebookDiagnostics(self.student.quantizers, self.device)

    @exit_code_two_in_commands()
    def on_train_start(self) -> None:
        """As the base; loads the foundation model first."""
        if not self.was_initialized:
            self.initialize()
        if self.foundation_model != "none":
            pretrained = self.foundation_model == "dinov2"
            self.foundation = dinov2.FrozenDINOv2(pretrained).to(self.device)
        super().on_train_start()

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        self.update_quantizers(unlabeled.image)
        logits, terms = self.pass_through(labeled.image, None, "labeled")
        yield {"supervised": self.supervised_loss(logits, labeled.target), **terms}
        del logits, terms

        weight = self.current_unlabeled_weight
        if weight == 0:
            return
        epsilon = self.qpm_epsilon * linear_rampup(self.progress, self.qpm_rampup)
        weak_label = self.teacher_label(unlabeled)
        image, label = self.strong_pair(unlabeled, weak_label)
        strong = epsilon if self.qpm_view == "strong" else 0.0
        if self.qpm_view == "weak":
            weight = 0.5 * weight
        logits, terms = self.pass_through(image, strong, "unlabeled")
        loss = self.pseudo_label_loss(self.full_resolution(logits), label)
        yield {
            "consistency": weight * loss,
            "_confident": label.weight.mean(),
            **{name: term if name[0] == "_" else weight * term for name, term in terms.items()},
        }
        if self.qpm_view == "weak":
            logits, terms = self.pass_through(unlabeled.image, epsilon, "weak")
            loss = self.pseudo_label_loss(self.full_resolution(logits), weak_label)
            yield {
                "consistency_weak": weight * loss,
                **{name: term if name[0] == "_" else weight * term for name, term in terms.items()},
            }

    def update_quantizers(self, image: Tensor) -> None:
        """Sets the warm-up's mix and, every so often, fits the codes and sets the temperature.

        Neither is undone where a continued run has more epochs, of which it has done a smaller
        fraction. A fit needs eigenvalues, for which the host waits; no other step does.
        """
        step = self.current_epoch * self.num_iterations_per_epoch + self.iteration
        before = self.quantizer_mix
        self.quantizer_mix = max(before, linear_rampup(self.progress, self.quantizer_warmup))
        due = step % self.calibrate_every == 0
        warming_up = before < 1 and self.progress <= self.quantizer_warmup
        if due and self.codebook_fit and warming_up:
            with torch.no_grad():
                stages = self.student.tokens(image)
            # torch before 2.10 would keep the weights' casts of this pass, which have no gradient.
            torch.clear_autocast_cache()
            for quantizer, tokens in zip(self.student.quantizers, stages, strict=True):
                quantizer.fit(*moments(tokens))
        for quantizer in self.student.quantizers:
            quantizer.mix.fill_(self.quantizer_mix)
            if due and self.qpm_mode == "calibrated":
                quantizer.calibrate(self.qpm_perplexity)

    def pass_through(
        self, image: Tensor, epsilon: float | None, name: str
    ) -> tuple[Any, dict[str, Tensor]]:
        """One student pass: logits, and the terms that every pass has, named after ``name``."""
        share = None if not epsilon else torch.full((), epsilon, device=self.device)
        output, reconstruction, adapted = self.network(
            image, epsilon=share, mode=self.qpm_mode, details=True
        )
        quantized = output.quantized
        terms: dict[str, Tensor] = {}
        commitment = torch.stack([q.commitment for q in quantized]).mean()
        terms[f"commitment_{name}"] = self.commitment_weight * commitment
        usage = [self.usage(i, q.tokens) for i, q in enumerate(quantized)]
        terms[f"usage_{name}"] = self.usage_weight * torch.stack(usage).mean()
        if reconstruction is not None:
            target = F.adaptive_avg_pool3d if image.ndim == 5 else F.adaptive_avg_pool2d
            wanted = target(image.clamp(-5, 5), reconstruction.shape[2:])
            difference = F.l1_loss(reconstruction.float(), wanted.float())
            terms[f"reconstruction_{name}"] = self.reconstruction_weight * difference
        if adapted is not None:
            terms[f"alignment_{name}"] = self.alignment_weight * self.alignment(adapted, image)
        self.diagnostics.count(quantized)
        if share is not None:
            moved = torch.stack([(q.perturbed != q.indices).float().mean() for q in quantized])
            terms["_perturbed"] = moved.mean()
        return output.logits, terms

    def usage(self, index: int, tokens: Tensor) -> Tensor:
        """Usage entropy of a random part of the tokens at one quantized stage."""
        chosen = torch.randperm(tokens.shape[0], device=tokens.device)[: self.usage_tokens]
        return usage_entropy(tokens[chosen], self.student.quantizers[index].codebook)

    def alignment(self, adapted: Tensor, image: Tensor) -> Tensor:
        """InfoNCE between the adapted map and the foundation model's, slice by slice."""
        assert self.foundation is not None
        grid = tuple(adapted.shape[2:])
        reference = self.foundation(dinov2.slices_for_grid(image, grid), grid[-2:])
        maps = adapted if adapted.ndim == 4 else adapted.transpose(1, 2).flatten(0, 1)
        features = maps.flatten(2).transpose(1, 2)
        return patchwise_infonce(features, reference, self.alignment_temperature)

    def end_epoch(self, unlabeled: Unlabeled) -> dict[str, float]:
        """Codebook use, the output's sensitivity to swaps, and the pictures."""
        return self.diagnostics.finish_epoch(self, unlabeled)

    def extra_state(self) -> dict[str, Any]:
        own = {"diagnostics": self.diagnostics.state_dict(), "quantizer_mix": self.quantizer_mix}
        return {**super().extra_state(), **own}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.quantizer_mix = state.get("quantizer_mix", 0.0)
        self.diagnostics.load_state_dict(state["diagnostics"])
        if self.local_rank != 0:
            self.diagnostics.reset()  # A checkpoint has the counts of the first rank only.
