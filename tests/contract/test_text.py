"""What the trainers with class texts must do beyond every trainer's contract."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import text_features, text_tower
from nnunet_semisup.foundation.text_features import TextFeatures
from nnunet_semisup.losses.targets import PseudoLabel, labels_of_target
from nnunet_semisup.mixing.masks import foreground
from nnunet_semisup.registry import METHODS, find_method
from nnunet_semisup.training import text_guidance
from nnunet_semisup.training.text_guidance import TextGuidance
from tests.contract.conftest import each_method, each_once, each_pair, one_of_each, trainer_class

TEXT = [m for m in METHODS if issubclass(trainer_class(m), TextGuidance)]
SEMISEG = find_method("nnUNetTrainerTextSemiSeg")
methods = each_method(TEXT)


def train(trainer, steps):
    for _ in range(steps):
        trainer.train_step(next(trainer.dataloader_train))
        trainer.iteration += 1


@methods
def test_learned_prompts_move_and_continue_bit_equal(build, with_clip, method, tmp_path):
    settings = {"text_model": "clip", "text_prompt": "learned", "num_iterations_per_epoch": 4}
    trainer = build(method, "labels3d", **settings)
    start = trainer.class_text.prompts.context.detach().clone()
    train(trainer, 2)
    context = trainer.class_text.prompts.context
    assert not torch.equal(context, start)
    assert all(p.grad is None for p in trainer.class_text._tower.parameters())
    file = str(tmp_path / "checkpoint.pth")
    trainer.write_checkpoint(file, trainer.current_epoch)
    train(trainer, 2)

    resumed = build(method, "labels3d", start=False, **settings)
    resumed.load_checkpoint(file)
    resumed.on_train_start()
    resumed.on_train_epoch_start()
    train(resumed, 2)
    assert torch.equal(resumed.class_text.prompts.context, context)
    for left, right in zip(
        trainer.network.state_dict().values(), resumed.network.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right)


def test_prompts_get_the_gradient_of_all_passes_at_once(build, with_clip):
    trainer = build(SEMISEG, "labels3d", text_model="clip", mix_start=0.0, prompt_length=2)
    batch = trainer.to_device(next(trainer.dataloader_train))
    text = trainer.class_text
    total = sum(
        term
        for terms in trainer.compute_losses(*batch)
        for name, term in terms.items()
        if name[0] != "_"
    )
    total.backward()
    trainer.after_backward()
    assert text.prompts.context.shape == (3, 2, 8)
    assert float(text.prompts.context.grad.abs().sum()) > 0
    assert text._graph is None


@each_method(one_of_each("on_train_epoch_end", "extra_state", "network_that_predicts", among=TEXT))
def test_checkpoint_holds_the_texts_and_no_text_model(build, with_clip, method):
    trainer = build(method, "labels3d", text_model="clip", num_iterations_per_epoch=1)
    train(trainer, 1)
    trainer.on_train_epoch_end([{"loss": 0.0}])
    assert torch.equal(trainer.student.text_features, trainer.class_text.current())
    path = Path(trainer.output_folder) / "checkpoint_final.pth"
    trainer.save_checkpoint(str(path))
    weights = torch.load(path, weights_only=False)["network_weights"]
    assert weights["text_features"].shape == (3, 16)
    assert not any("token_embedding" in name or "resblocks" in name for name in weights)
    assert not any(49408 in w.shape for w in weights.values())


def test_a_features_file_needs_no_text_model(build, features, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    trainer = build(SEMISEG, "labels3d", text_model="features")
    torch.testing.assert_close(trainer.student.text_features, features)
    train(trainer, 1)
    recorded = json.loads(
        (Path(trainer.output_folder) / "semisup_config.json").read_text(encoding="utf-8")
    )
    assert recorded["texts"] == {"background": ["x"], "a": ["y"], "b": ["z"]}
    assert (recorded["text_encoder"], recorded["text_width"]) == ("other", 24)
    assert recorded["learned_prompts"] is False
    assert capsys.readouterr().out.count("they stay as they are, no prompt is learned") == 1


def test_prediction_without_open_clip_gives_the_same_logits(build, features, tmp_path):
    trainer = build(SEMISEG, "labels3d", text_model="features")
    train(trainer, 2)
    folder = Path(trainer.output_folder)
    trainer.save_checkpoint(str(folder / "checkpoint_final.pth"))
    image = next(trainer.dataloader_val)["data"][:1]
    np.save(tmp_path / "image.npy", image.numpy())
    code = f"""
import sys
sys.modules["open_clip"] = sys.modules["transformers"] = None
import numpy as np, torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
p = nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"))
p.initialize_from_trained_model_folder({str(folder.parent)!r}, (0,), "checkpoint_final.pth")
p.network.load_state_dict(p.list_of_parameters[0])
with torch.no_grad():
    out = p.network.eval()(torch.from_numpy(np.load({str(tmp_path / "image.npy")!r})))
np.save({str(tmp_path / "logits.npy")!r}, out.numpy())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    trainer.set_deep_supervision_enabled(False)
    network = trainer.student.eval()
    network.in_training = False
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(np.load(tmp_path / "logits.npy")), network(image), atol=1e-6, rtol=0
        )


@each_pair(each_once(TEXT, ("regions2d", "labels3d")))
def test_text_changes_the_segmentation_after_training(build, method, kind):
    trainer = build(method, kind, num_iterations_per_epoch=20, seed=0)
    train(trainer, 8)
    _, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    with torch.no_grad():
        assert trainer.end_epoch(unlabeled)["text_sensitivity"] > 1e-5


@each_pair(each_once(TEXT, ("regions2d", "labels3d")))
def test_what_the_texts_do_is_measured(build, method, kind):
    trainer = build(method, kind, num_iterations_per_epoch=20, text_reading="visual_query")
    batch = next(trainer.dataloader_train)
    _, unlabeled = trainer.to_device(batch)
    with torch.no_grad():
        start = trainer.end_epoch(unlabeled)
    assert [start[f"text_{n}"] for n in ("interaction", "share", "sensitivity")] == [0, 0, 0]

    train(trainer, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = trainer.end_epoch(unlabeled)
    assert trainer.student.training
    student, image = trainer.student.eval(), unlabeled.image[:1]
    other = torch.randn(
        student.text_features.shape, generator=torch.Generator().manual_seed(trainer.seed + 1)
    )
    other = other / other.norm(dim=1, keepdim=True)
    with torch.no_grad():
        features, plain = student.encode_with(image, student.text_features)
        changed, _ = student.encode_with(image, other)
        decoded = [student.decoder(skips) for skips in (features, changed)]
        logits = [trainer.full_resolution(one) for one in decoded]
    own, others = features[-1] - plain, changed[-1] - plain
    expected = {
        "text_interaction": own.norm() / plain.norm(),
        "text_share": (own - others).norm() / own.norm(),
        "text_sensitivity": (logits[1] - logits[0]).norm() / logits[0].norm(),
    }
    for name, value in expected.items():
        assert value > 0
        assert got[name] == pytest.approx(float(value), rel=1e-4), name


@methods
def test_two_passes_are_never_in_memory_at_once(build, method, monkeypatch):
    """What a pass saved for its gradient is gone when the next one begins."""
    trainer = build(method, "labels3d", num_epochs=4, num_iterations_per_epoch=1)
    trainer.current_epoch = 3  # Where every method's passes are due.
    forward, alive, seen = trainer.network.forward, weakref.WeakSet(), []

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor
            alive.add(self)

    def watched(*arguments, **named):
        before = len(alive)
        output = forward(*arguments, **named)
        seen.append((before, len(alive)))
        return output

    monkeypatch.setattr(trainer.network, "forward", watched)
    batch = next(trainer.dataloader_train)
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        trainer.train_step(batch)
    assert len(seen) == (3 if method is SEMISEG else 2)
    assert all(before == 0 and after > 0 for before, after in seen), seen


@methods
def test_without_text_the_predicting_network_is_the_plans(build, method):
    trainer = build(method, "labels3d", text_model="none")
    train(trainer, 1)
    names = list(trainer.student.state_dict())
    assert not any("interaction" in name or "text" in name for name in names)
    losses = trainer.compute_losses(*trainer.to_device(next(trainer.dataloader_train)))
    assert not any(name.startswith("alignment") for terms in losses for name in terms)


class TestMixing:
    def groups(self, trainer):
        return trainer.compute_losses(*trainer.to_device(next(trainer.dataloader_train)))

    @pytest.mark.parametrize("second_better", [False, True])
    def test_only_the_worse_decoder_learns_from_mixed_images(
        self, build, monkeypatch, second_better
    ):
        trainer = build(SEMISEG, "labels3d", mix_start=0.0)
        monkeypatch.setattr(
            trainer, "second_is_better", lambda _: torch.tensor(second_better), raising=True
        )
        *_, mixed = self.groups(trainer)
        mixed["mixed"].backward()
        network = trainer.training_network
        first, second = network.decoder.stages, network.inner.others[0].stages
        learning, still = (first, second) if second_better else (second, first)
        assert all(p.grad is not None for p in learning.parameters())
        assert all(p.grad is None for p in still.parameters())
        assert any(p.grad is not None for p in network.encoder.parameters())

    def test_better_means_lower_labeled_loss_and_a_tie_goes_to_the_first(self, build):
        trainer = build(SEMISEG, "labels3d", start=False)
        for losses, second in (([1.0, 0.5], True), ([0.5, 1.0], False), ([1.0, 1.0], False)):
            assert bool(trainer.second_is_better(torch.tensor(losses))) is second

    def test_begins_after_its_fraction_of_training(self, build):
        trainer = build(SEMISEG, "labels3d", mix_start=0.5)
        assert not any("mixed" in terms for terms in self.groups(trainer))
        trainer.current_epoch = 1
        assert any("mixed" in terms for terms in self.groups(trainer))

    def test_losses_of_the_two_kinds_are_added(self, build):
        trainer = build(SEMISEG, "labels3d", start=False)
        logits, target = torch.randn(4, 3, 4, 4, 4), torch.randint(0, 3, (4, 1, 4, 4, 4))
        weight = torch.rand(4, 1, 4, 4, 4).round()
        one, other = (
            trainer.segmentation_loss(logits[half], PseudoLabel(target[half], weight[half]))
            for half in (slice(0, 2), slice(2, 4))
        )
        assert not torch.isclose(one, other)
        got = trainer.mixed_loss(logits, PseudoLabel(target, weight))
        torch.testing.assert_close(got, one + other)

    @pytest.mark.parametrize("kind", ["labels3d", "ignore3d"])
    def test_padding_is_left_out_of_the_mixed_alignment(self, build, monkeypatch, kind):
        trainer = build(SEMISEG, kind, mix_start=0.0)
        labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
        unlabeled.valid[:, :, :4] = False
        seen = []

        def recorded(visual, logits, text, regions, valid):
            seen.append(valid)
            return logits.mean()

        monkeypatch.setattr(text_guidance, "semantic_alignment", recorded)
        list(trainer.compute_losses(labeled, unlabeled))
        assert seen[:2] == [None, None], "of both decoders on labeled patches"
        assert all(torch.equal(valid, unlabeled.valid) for valid in seen[2:4])
        (mixed,) = seen[4:]
        label = labels_of_target(labeled.target, trainer.label_manager.ignore_label, False)
        expected = foreground(label) | unlabeled.valid
        count = unlabeled.valid.shape[0]
        assert torch.equal(mixed[:count], expected)
        assert not mixed[:count].all()
        assert mixed[count:].all()

    def test_weights_of_zero_leave_passes_out(self, build):
        trainer = build(SEMISEG, "labels3d", mix_start=0.0, mix_weight=0.0)
        assert len(list(self.groups(trainer))) == 2
        trainer.unlabeled_weight = 0.0
        assert len(list(self.groups(trainer))) == 1

    def test_cross_supervision_does_not_reach_the_labeling_decoder(self, build):
        trainer = build(SEMISEG, "labels3d", text_alignment_weight=0.0)
        next(groups := self.groups(trainer))
        next(groups)["consistency_1"].backward()
        (second,) = trainer.training_network.inner.others
        assert all(p.grad is None for p in second.parameters())

    def test_batches_of_unequal_size(self, build):
        trainer = build(SEMISEG, "labels3d", mix_start=0.0, unlabeled_batch_size=3)
        assert torch.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])


class TestRefused:
    """Before anything is written."""

    @pytest.fixture(autouse=True)
    def nothing_is_written(self, tmp_path):
        yield
        assert not list(tmp_path.glob("results*/**/*.txt"))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"text_model": "gpt"}, "must be one of clip, biomedclip, features, random, none"),
            ({"text_reading": "x"}, "must be one of paper, gate"),
            ({"text_prompt": "x"}, "must be one of learned, template"),
            ({"text_template": "organ"}, "must contain {}"),
            ({"text_template": "scan of {}"}, "text_prompt=template"),
            ({"text_template": "scan of {}", "text_model": "random"}, "text_model=clip"),
            ({"text_template": "scan of {}", "text_model": "features"}, "--template"),
            ({"prompt_length": 0}, "must be between 1 and 32"),
            (
                {"text_model": "features", "text_prompt": "learned"},
                "text_prompt=learned needs the text model itself",
            ),
            ({"mix_start": 2.0}, "must be between 0 and 1"),
        ],
    )
    def test_settings(self, build, settings, message):
        with pytest.raises(UserError, match=message):
            build(SEMISEG, "labels3d", start=False, **settings)

    def test_features_of_other_labels(self, build, tmp_path, monkeypatch):
        path = tmp_path / "features.npz"
        TextFeatures(("liver",), torch.ones(1, 4), "m", ("t",)).save(path)
        monkeypatch.setenv(text_features.VARIABLE, str(path))
        with pytest.raises(UserError, match="not for background, a, b"):
            build(SEMISEG, "labels3d", start=False, text_model="features")

    def test_descriptions_of_labels_that_do_not_exist(self, build, with_clip, datasets):
        path = datasets("labels3d") / "class_descriptions.json"
        path.write_text(json.dumps({"liver": "the liver"}))
        try:
            with pytest.raises(UserError, match="names liver, which are no labels"):
                build(SEMISEG, "labels3d", start=False, text_model="clip")
        finally:
            path.unlink()

    @pytest.mark.parametrize(
        ("settings", "shown"),
        [({}, "X X X X heart"), ({"text_prompt": "template"}, "a medical image of the heart")],
    )
    def test_descriptions_that_are_too_long(self, build, with_clip, datasets, settings, shown):
        path = datasets("labels3d") / "class_descriptions.json"
        path.write_text(json.dumps({"a": "heart " * 18}))
        try:
            with pytest.raises(UserError, match=f"takes 24 tokens: {shown}"):
                build(SEMISEG, "labels3d", start=False, text_model="clip", **settings)
        finally:
            path.unlink()

    def test_a_folder_without_weights(self, build, monkeypatch, tmp_path):
        pytest.importorskip("open_clip")
        folder = tmp_path / "weights"
        folder.mkdir()
        (folder / "open_clip_config.json").write_text("{}")
        monkeypatch.setenv(text_tower.VARIABLE, str(folder))
        with pytest.raises(UserError, match="without weights"):
            build(SEMISEG, "labels3d", start=False, text_model="clip")

    def test_a_control_for_features_that_are_not_there(self, build, monkeypatch):
        monkeypatch.setenv(text_features.VARIABLE, "/not/there.npz")
        with pytest.raises(UserError, match=r"text_model=random takes the width .*/not/there"):
            build(SEMISEG, "labels3d", start=False, text_model="random")
