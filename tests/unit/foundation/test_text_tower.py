from __future__ import annotations

import builtins
import json
import shutil

import pytest
import torch

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import text_tower
from nnunet_semisup.foundation.text_tower import VARIABLE, TextTower, load_text_tower
from nnunet_semisup.networks.prompts import PromptLearner, template_features

TEXTS = ["a medical image of the left atrium.", "background", "brain tumor"]


@pytest.fixture(params=list(text_tower.MODELS))
def tower(request, monkeypatch, no_network):
    monkeypatch.setenv(VARIABLE, str(request.getfixturevalue(f"{request.param}_folder")))
    return load_text_tower(request.param)


@pytest.mark.parametrize("custom", [False, True])
def test_equals_open_clips_own_encoding(clip_folder, custom):
    import open_clip

    name = f"local-dir:{clip_folder}"
    clip = open_clip.create_model(name, force_custom_text=custom).eval()
    tokenizer = open_clip.get_tokenizer(name)
    with torch.no_grad():
        expected = clip.encode_text(tokenizer(TEXTS), normalize=True)
        got = TextTower(clip, tokenizer)(TEXTS)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_transformers_tower_equals_its_own_forward():
    transformers = pytest.importorskip("transformers")
    from open_clip.hf_model import HFTextEncoder

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=16,
    )  # fmt: skip
    encoder = HFTextEncoder(
        "", 6, config=config, pooler_type="cls_last_hidden_state_pooler", proj_type="mlp"
    ).eval()
    tower = TextTower(torch.nn.ModuleDict({"text": encoder}), None)
    ids = torch.tensor([[1, 5, 6, 2, 0], [1, 7, 2, 0, 0]])
    with torch.no_grad():
        expected = torch.nn.functional.normalize(encoder(ids), dim=-1)
        torch.testing.assert_close(tower.encode(tower.embed(ids), ids), expected)


def test_is_frozen_without_image_tower(tower):
    assert not any(p.requires_grad for p in tower.parameters())
    assert not tower.train().training
    assert not any("visual" in name for name, _ in tower.named_parameters())


def test_cutting_after_the_longest_text_changes_nothing(tower):
    ids = tower.tokenize(TEXTS)
    assert ids.shape[1] < 24
    full = tower.tokenizer(TEXTS)
    torch.testing.assert_close(
        tower.encode(tower.embed(ids), ids), tower.encode(tower.embed(full), full)
    )


def test_too_long_texts_are_named(tower):
    with pytest.raises(UserError, match="24 tokens: heart heart"):
        tower.tokenize(["liver", " ".join(["heart"] * 30)])


class TestPrompts:
    texts = {"background": ["background"], "la": ["left atrium", "atrium sinistrum"]}  # noqa: RUF012

    @pytest.mark.parametrize(("per_class", "contexts"), [(True, 2), (False, 1)])
    def test_only_the_context_learns(self, tower, per_class, contexts):
        prompts = PromptLearner(tower, self.texts, 4, per_class, seed=0)
        assert [(name, tuple(p.shape)) for name, p in prompts.named_parameters()] == [
            ("context", (contexts, 4, 8))
        ]
        assert list(prompts.state_dict()) == ["context"]
        features = prompts()
        assert features.shape == (2, 16)
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))
        features[0, 0].backward()
        assert float(prompts.context.grad.abs().sum()) > 0
        assert all(p.grad is None for p in tower.parameters())

    def test_untouched_embeddings_give_the_text_itself(self, tower):
        prompts = PromptLearner(tower, self.texts, 4, True, seed=0)
        with torch.no_grad():
            prompts.context.copy_(prompts.embeddings[:1, 1:5].expand(2, -1, -1))
            expected = tower(["X X X X background.", "X X X X left atrium."])
            torch.testing.assert_close(prompts()[0], expected[0])

    def test_several_texts_are_averaged(self, tower):
        both = template_features(tower, self.texts, "a {}")
        with torch.no_grad():
            each = tower(["a left atrium", "a atrium sinistrum"])
        mean = torch.nn.functional.normalize(each.mean(0), dim=0)
        torch.testing.assert_close(both[1], mean)

    def test_seed_decides_the_start(self, tower):
        one, same, other = (PromptLearner(tower, self.texts, 2, True, s).context for s in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


class TestTokenizer:
    def test_is_the_models_own(self, tower):
        """That of a folder; the tower's fixture names one."""
        model = "biomedclip" if tower.from_transformers else "clip"
        tokenizer = text_tower.load_tokenizer(model)
        assert torch.equal(tokenizer(TEXTS), tower.tokenizer(TEXTS))

    def test_clip_ships_its_own_and_biomedclip_does_not(self, monkeypatch, no_network):
        pytest.importorskip("open_clip")
        monkeypatch.delenv(VARIABLE, raising=False)
        assert text_tower.load_tokenizer("clip")(["heart"]).shape == (1, 77)
        with pytest.raises(UserError, match="The text model 'biomedclip'"):
            text_tower.load_tokenizer("biomedclip")

    def test_folder_without_one(self, monkeypatch, tmp_path, biomedclip_folder, no_network):
        shutil.copy(biomedclip_folder / "open_clip_config.json", tmp_path)
        monkeypatch.setenv(VARIABLE, str(tmp_path))
        with pytest.raises(UserError, match=str(tmp_path)):
            text_tower.load_tokenizer("biomedclip")


def with_config(folder, text):
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
    (folder / "weights.bin").touch()


class TestUnavailable:
    def check(self, message, reason):
        assert reason in message
        for way_out in (VARIABLE, "nnUNetv2_semisup_text_features", "text_model=none"):
            assert way_out in message

    @pytest.mark.parametrize("model", list(text_tower.MODELS))
    def test_no_weights(self, no_network, monkeypatch, model):
        monkeypatch.delenv(VARIABLE, raising=False)
        for function in (text_tower.weights_location, load_text_tower):
            with pytest.raises(UserError) as caught:
                function(model)
            self.check(str(caught.value), "HF_HUB_OFFLINE")
            assert text_tower.MODELS[model].repository in str(caught.value)

    def test_no_open_clip(self, monkeypatch):
        real = builtins.__import__

        def refuse(name, *args, **kwargs):
            if name.split(".")[0] == "open_clip":
                raise ImportError("no", name="open_clip")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(UserError) as caught:
            text_tower.weights_location("clip")
        self.check(str(caught.value), "pip install open_clip_torch transformers")

    @pytest.mark.parametrize(
        ("make", "model", "reason"),
        [
            (lambda p: None, "clip", "does not exist"),
            (lambda p: p.mkdir(), "clip", "without open_clip_config.json"),
            (lambda p: with_config(p, "{"), "clip", "is no configuration of open_clip"),
            (lambda p: with_config(p, "[]"), "clip", "is no configuration of open_clip"),
            (lambda p: p.write_bytes(b"x"), "biomedclip", "needs a folder"),
        ],
    )
    def test_named_weights_that_do_not_do(self, monkeypatch, tmp_path, make, model, reason):
        path = tmp_path / "weights"
        make(path)
        monkeypatch.setenv(VARIABLE, str(path))
        with pytest.raises(UserError) as caught:
            text_tower.weights_location(model)
        self.check(str(caught.value), reason)

    def test_folder_without_weights_is_never_random(self, monkeypatch, tmp_path, clip_folder):
        shutil.copy(clip_folder / "open_clip_config.json", tmp_path)
        monkeypatch.setenv(VARIABLE, str(tmp_path))
        for function in (text_tower.weights_location, load_text_tower):
            with pytest.raises(UserError) as caught:
                function("clip")
            self.check(str(caught.value), r"without weights (.safetensors, .bin, .pth)")

    def test_folder_that_needs_the_hub(self, monkeypatch, tmp_path, biomedclip_folder, no_network):
        """open_clip takes the language model's configuration from the hub, whatever the folder."""
        folder = tmp_path / "copy"
        shutil.copytree(biomedclip_folder, folder)
        path = folder / "open_clip_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["model_cfg"]["text_cfg"]["hf_model_name"] = "some/bert"
        path.write_text(json.dumps(config), encoding="utf-8")
        monkeypatch.setenv(VARIABLE, str(folder))
        with pytest.raises(UserError) as caught:
            text_tower.weights_location("biomedclip")
        self.check(str(caught.value), "has hf_model_name some/bert")

    def test_cached_weights_whose_language_model_is_not_cached(
        self, monkeypatch, tmp_path, biomedclip_folder, no_network
    ):
        monkeypatch.delenv(VARIABLE, raising=False)
        name = text_tower.MODELS["biomedclip"].repository.replace("/", "--")
        cached = tmp_path / "hub" / f"models--{name}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text("1")
        folder = cached / "snapshots" / "1"
        folder.mkdir(parents=True)
        (folder / "open_clip_pytorch_model.bin").touch()
        with pytest.raises(UserError) as caught:
            text_tower.weights_location("biomedclip")
        self.check(str(caught.value), "HF_HUB_OFFLINE")
        text = (biomedclip_folder / "open_clip_config.json").read_text(encoding="utf-8")
        config = json.loads(text)
        (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
        assert text_tower.weights_location("biomedclip") == str(
            folder / "open_clip_pytorch_model.bin"
        )
        config["model_cfg"]["text_cfg"]["hf_model_name"] = "some/bert"
        (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(UserError) as caught:
            text_tower.weights_location("biomedclip")
        self.check(str(caught.value), "has hf_model_name some/bert")

    def test_broken_file(self, monkeypatch, tmp_path):
        path = tmp_path / "weights.pt"
        path.write_bytes(b"not weights")
        monkeypatch.setenv(VARIABLE, str(path))
        with pytest.raises(UserError) as caught:
            load_text_tower("clip")
        self.check(str(caught.value), "clip")
