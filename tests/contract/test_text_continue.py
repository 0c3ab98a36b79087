"""Class texts of a run that is continued or validated, and of a run and its control."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import text_features, text_tower
from tests.contract.conftest import EVERYTHING
from tests.contract.test_text import SEMISEG, TEXT, train
from tests.text_models import make_clip_folder


def same_start(trainer, other):
    """Names of weights of equal shape, texts and what reads them aside, that start different."""
    texts = ("projection", "cross_attention.query", "text_features")
    ours, theirs = (
        {name.removeprefix("inner."): weight for name, weight in network.state_dict().items()}
        for network in (trainer.training_network, other.training_network)
    )
    names = [n for n in ours.keys() & theirs.keys() if not any(part in n for part in texts)]
    assert any("others.0" in n for n in names)
    assert any("encoder" in n for n in names)
    return [n for n in names if not torch.equal(ours[n], theirs[n])]


def test_a_run_and_its_controls_start_equal(build, features, with_clip, monkeypatch):
    run = build(SEMISEG, "labels3d", text_model="features")
    control = build(SEMISEG, "labels3d", text_model="random")
    assert control.student.text_features.shape == features.shape
    shapes = [{n: p.shape for n, p in t.network.named_parameters()} for t in (run, control)]
    assert shapes[0] == shapes[1]
    assert same_start(run, control) == []
    for settings in (
        {"text_model": "none"},
        {"text_model": "clip"},
        {"text_model": "features", "text_reading": "gate"},
    ):
        other = build(SEMISEG, "labels3d", **settings)
        different = [n for n in same_start(run, other) if not n.endswith("reading_number")]
        assert different == [], settings
    monkeypatch.delenv(text_features.VARIABLE)
    wide = build(SEMISEG, "labels3d", text_model="random")
    assert wide.student.text_features.shape == (3, 512)
    assert same_start(run, wide) == []


class TestContinuing:
    """Only with the texts that the training began with."""

    def saved(self, build, tmp_path, **settings):
        trainer = build(SEMISEG, "labels3d", **settings)
        train(trainer, 1)
        file = str(tmp_path / "checkpoint_latest.pth")
        trainer.write_checkpoint(file, trainer.current_epoch)
        return file

    def refused(self, build, file, message, **settings):
        other = build(SEMISEG, "labels3d", start=False, **settings)
        with pytest.raises(UserError, match=message) as caught:
            other.load_checkpoint(file)
        assert "same" in str(caught.value)
        assert "--c" in str(caught.value)

    def test_with_another_text_model(self, build, features, tmp_path):
        file = self.saved(build, tmp_path, text_model="features")
        for model in ("random", "none"):
            message = f"with text_model=features, but this run has text_model={model}"
            self.refused(build, file, message, text_model=model)

    @pytest.mark.parametrize("was", ["paper", "visual_query"])
    def test_with_another_reading(self, build, tmp_path, was):
        file = self.saved(build, tmp_path, text_reading=was)
        message = f"text_reading={was}, but this run has text_reading=gate"
        self.refused(build, file, message, text_reading="gate")

    @pytest.mark.parametrize(
        ("name", "value"),
        [("prompt_length", 3), ("prompt_per_class", False), ("text_prompt", "template")],
    )
    def test_with_other_prompts(self, build, with_clip, tmp_path, name, value):
        file = self.saved(build, tmp_path, text_model="clip")
        message = f"but this run has {name}={value}"
        self.refused(build, file, message, text_model="clip", **{name: value})

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ({"width": 12}, "width 24, but this run has 12"),
            ({"model": "clip"}, "the text encoder other, but this run has clip"),
            ({"seed": 1}, "other features of the same texts"),
        ],
    )
    def test_with_another_features_file(self, build, write_features, tmp_path, written, message):
        write_features()
        file = self.saved(build, tmp_path, text_model="features")
        write_features(**written)
        self.refused(build, file, message, text_model="features")

    def test_with_other_weights_of_the_text_model(self, build, with_clip, tmp_path, monkeypatch):
        file = self.saved(build, tmp_path, text_model="clip")
        other = make_clip_folder(tmp_path / "other", seed=1)
        monkeypatch.setenv(text_tower.VARIABLE, str(other))
        self.refused(build, file, "other features of the same texts", text_model="clip")

    def test_with_other_descriptions(self, build, with_clip, datasets, tmp_path):
        file = self.saved(build, tmp_path, text_model="clip")
        path = datasets("labels3d") / "class_descriptions.json"
        path.write_text(json.dumps({"a": "something else"}))
        try:
            self.refused(build, file, "the class texts .*something else", text_model="clip")
        finally:
            path.unlink()


SETTINGS = (
    {"text_model": "clip"},
    {"text_model": "clip", "text_prompt": "template"},
    {"text_model": "features", "text_reading": "gate"},
    {"text_model": "none"},
)


class TestFinishedFold:
    """It has its texts in the checkpoint."""

    @pytest.fixture
    def again(self, monkeypatch):
        """The trainer that a later command makes, where the text model cannot be had."""

        def make(first, continues, **settings):
            monkeypatch.setitem(sys.modules, "open_clip", None)
            monkeypatch.delenv(text_tower.VARIABLE, raising=False)
            monkeypatch.delenv(text_features.VARIABLE, raising=False)
            given = ",".join(f"{name}={value}" for name, value in settings.items())
            monkeypatch.setenv("nnUNet_semisup_set", given)
            plans = {**first.plans_manager.plans, "continue_training": continues}
            return type(first)(plans, "3d_fullres", 0, first.dataset_json, torch.device("cpu"))

        return make

    def finished(self, build, method, **settings):
        trainer = build(method, "labels3d", **settings)
        trainer.current_epoch = 1
        train(trainer, 1)
        trainer.on_train_epoch_end([{"loss": 0.0}])
        trainer.save_checkpoint(self.final(trainer))
        return trainer

    def final(self, trainer):
        return str(Path(trainer.output_folder) / "checkpoint_final.pth")

    @pytest.mark.parametrize("continues", [False, True])
    @pytest.mark.parametrize(
        ("method", "settings"),
        [
            (method, settings)
            for method in TEXT
            for settings in SETTINGS
            if EVERYTHING or method is SEMISEG or settings is SETTINGS[0]
        ],
        ids=lambda value: getattr(value, "trainer", None) or "-".join(value.values()),
    )
    def test_is_validated_without_the_text_model(
        self, build, with_clip, features, again, method, continues, settings
    ):
        first = self.finished(build, method, **settings)
        later = again(first, continues)
        later.load_checkpoint(self.final(first))
        image = next(first.dataloader_val)["data"][:1]
        logits = []
        for trainer in (first, later):
            with trainer.predicting(deep_supervision=False), torch.no_grad():
                trainer.set_deep_supervision_enabled(False)
                logits.append(trainer.network.eval()(image))
        assert torch.equal(*logits)
        ours, theirs = (t.extra_state()["text"] for t in (first, later))
        if settings["text_model"] == "none":
            assert ours is theirs is None
            return
        assert ours["texts"] == theirs["texts"]
        assert torch.equal(ours["features"], theirs["features"])
        if ours["prompts"] is not None:
            assert torch.equal(ours["prompts"]["context"], theirs["prompts"]["context"])
            with pytest.raises(UserError, match="continue with --c and more epochs"):
                later.step_text()

    def test_of_a_run_with_other_numbers_of_epochs(self, build, with_clip, again):
        """``--val`` with settings that are not the run's."""
        first = self.finished(build, SEMISEG, text_model="clip")
        again(first, False, num_epochs=9).load_checkpoint(self.final(first))

    def test_is_not_trained_on_without_the_text_model(self, build, with_clip, again):
        first = self.finished(build, SEMISEG, text_model="clip")
        later = again(first, True, num_epochs=9)
        with pytest.raises(UserError, match=r"The text model 'clip' .* cannot be had"):
            later.load_checkpoint(self.final(first))

    def test_an_unfinished_fold_needs_it_at_once(self, build, with_clip, again):
        first = self.finished(build, SEMISEG, text_model="clip")
        shutil.move(self.final(first), str(Path(first.output_folder) / "checkpoint_latest.pth"))
        with pytest.raises(UserError, match=r"The text model 'clip' .* cannot be had"):
            again(first, True)

    def test_other_settings_are_still_refused(self, build, with_clip, again):
        first = self.finished(build, SEMISEG, text_model="clip")
        later = again(first, False, text_reading="gate")
        with pytest.raises(UserError, match="text_reading=paper, but this run has"):
            later.load_checkpoint(self.final(first))
