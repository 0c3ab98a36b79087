"""What the trainers with class texts must do beyond every trainer's contract."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import text_features, text_tower
from nnunet_semisup.foundation.text_features import TextFeatures
from nnunet_semisup.registry import find_method
from nnunet_semisup.trainers.batches import unwrap
from tests.text_models import make_clip_folder

TEXT = [find_method(f"nnUNetTrainer{name}") for name in ("TextSemiSeg", "MeanTeacherText")]
SEMISEG = TEXT[0]
LABELS = ("background", "a", "b")
methods = pytest.mark.parametrize("method", TEXT, ids=lambda m: m.trainer)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    pytest.importorskip("open_clip")
    return make_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def with_clip(clip_folder, monkeypatch):
    monkeypatch.setenv(text_tower.VARIABLE, str(clip_folder))


@pytest.fixture
def features(tmp_path, monkeypatch):
    """A features file, of another width than CLIP's."""
    path = tmp_path / "features.npz"
    vectors = F.normalize(torch.randn(3, 24), dim=-1)
    TextFeatures(LABELS, vectors, "other", ("x", "y", "z")).save(path)
    monkeypatch.setenv(text_features.VARIABLE, str(path))
    return vectors


def train(trainer, steps):
    for _ in range(steps):
        trainer.train_step(next(trainer.dataloader_train))
        trainer.iteration += 1


@methods
def test_learned_prompts_move_and_continue_bit_equal(build, with_clip, method, tmp_path):
    settings = {"text_model": "clip", "num_iterations_per_epoch": 4}
    trainer = build(method, "labels3d", **settings)
    start = trainer.class_text.prompts.context.detach().clone()
    train(trainer, 2)
    context = trainer.class_text.prompts.context
    assert not torch.equal(context, start)
    assert all(p.grad is None for p in trainer.class_text._tower.parameters())
    file = str(tmp_path / "checkpoint.pth")
    trainer._save(file, trainer.current_epoch)
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
    batch = trainer._to_device(next(trainer.dataloader_train))
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


@methods
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


def test_a_features_file_needs_no_text_model(build, features, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    trainer = build(SEMISEG, "labels3d", text_model="features")
    torch.testing.assert_close(trainer.student.text_features, features)
    train(trainer, 1)
    recorded = json.loads(
        (Path(trainer.output_folder) / "semisup_config.json").read_text(encoding="utf-8")
    )
    assert recorded["texts"] == {"background": ["x"], "a": ["y"], "b": ["z"]}


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
    network = unwrap(trainer.network).eval()
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(np.load(tmp_path / "logits.npy")), network(image), atol=1e-6, rtol=0
        )


@methods
@pytest.mark.parametrize("kind", ["labels3d", "regions2d"])
def test_text_changes_the_segmentation_after_training(build, method, kind):
    trainer = build(method, kind, num_iterations_per_epoch=20, seed=0)
    train(trainer, 8)
    _, unlabeled = trainer._to_device(next(trainer.dataloader_train))
    assert trainer.end_epoch(unlabeled)["text_sensitivity"] > 1e-5


@methods
def test_without_text_the_predicting_network_is_the_plans(build, method):
    trainer = build(method, "labels3d", text_model="none")
    train(trainer, 1)
    names = list(trainer.student.state_dict())
    assert not any("interaction" in name or "text" in name for name in names)
    losses = trainer.compute_losses(*trainer._to_device(next(trainer.dataloader_train)))
    assert not any(name.startswith("alignment") for terms in losses for name in terms)


class TestMixing:
    def groups(self, trainer):
        return trainer.compute_losses(*trainer._to_device(next(trainer.dataloader_train)))

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
        network = unwrap(trainer.network)
        first, second = network.decoder.stages, network.second_decoder.stages
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

    def test_weights_of_zero_leave_passes_out(self, build):
        trainer = build(SEMISEG, "labels3d", mix_start=0.0, mix_weight=0.0)
        assert len(list(self.groups(trainer))) == 2
        trainer.unlabeled_weight = 0.0
        assert len(list(self.groups(trainer))) == 1

    def test_cross_supervision_does_not_reach_the_labeling_decoder(self, build):
        trainer = build(SEMISEG, "labels3d", text_alignment_weight=0.0)
        next(groups := self.groups(trainer))
        next(groups)["consistency_1"].backward()
        second = unwrap(trainer.network).second_decoder
        assert all(p.grad is None for p in second.parameters())

    def test_batches_of_unequal_size(self, build):
        trainer = build(SEMISEG, "labels3d", mix_start=0.0, unlabeled_batch_size=3)
        assert torch.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"text_model": "gpt"}, "must be one of clip, biomedclip, features, random, none"),
            ({"text_reading": "x"}, "must be one of paper, gate"),
            ({"text_prompt": "x"}, "must be one of learned, template"),
            ({"text_template": "organ"}, "must contain {}"),
            ({"prompt_length": 0}, "must be between 1 and 32"),
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

    def test_continuing_with_another_text(self, build, features, tmp_path):
        trainer = build(SEMISEG, "labels3d", text_model="features")
        train(trainer, 1)
        file = str(tmp_path / "checkpoint.pth")
        trainer._save(file, trainer.current_epoch)
        before = copy.deepcopy(torch.load(file, weights_only=False)["network_weights"])
        for model in ("random", "none"):
            other = build(SEMISEG, "labels3d", start=False, text_model=model)
            with pytest.raises(UserError, match="same"):
                other.load_checkpoint(file)
        assert before.keys() == torch.load(file, weights_only=False)["network_weights"].keys()
