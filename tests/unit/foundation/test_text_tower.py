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
from tests.text_models import make_clip_folder

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


POOLED = {
    "end of text": ({}, False),
    "end of text, named": ({"pool_type": "eos", "eos_id": 49407}, True),
    "last": ({"pool_type": "last"}, False),
    "last, sees all": ({"pool_type": "last", "no_causal_mask": True}, True),
    "first, sees all": ({"pool_type": "first", "no_causal_mask": True}, True),
    "end of text, sees all": ({"no_causal_mask": True}, True),
    "class token": ({"embed_cls": True}, True),
    "class token and tokens": ({"embed_cls": True, "output_tokens": True}, "coca"),
    "projection with bias": ({"proj_bias": True}, True),
    "no projection": ({"proj_type": "none"}, True),
}


@pytest.mark.parametrize("kind", POOLED)
def test_features_are_open_clips_own_whatever_it_pools(kind, tmp_path, monkeypatch, no_network):
    """Of open_clip 3.3's text towers, cosines were 0.5 to 0.9 where one pools at the last token or
    has a class token, as CLIPA, SigLIP and CoCa: texts were cut and pooled where they end."""
    open_clip = pytest.importorskip("open_clip")
    text, form = POOLED[kind]
    folder = make_clip_folder(tmp_path / "model", spread=True, form=form, text=text)
    monkeypatch.setenv(VARIABLE, str(folder))
    tower = load_text_tower("clip")
    clip = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        expected = clip.encode_text(tower.tokenizer(TEXTS), normalize=True)
        torch.testing.assert_close(tower(TEXTS), expected, atol=1e-6, rtol=0)
    prompts = PromptLearner(tower, {"a": ["atrium"], "b": ["background"]}, 2, True, seed=0)
    prompts()[0, 0].backward()
    assert float(prompts.context.grad[0].abs().sum()) > 0
    assert float(prompts.context.grad[1].abs().sum()) == 0, "a text depends on its own tokens only"


HF_POOLERS = ["cls_pooler", "cls_last_hidden_state_pooler", "mean_pooler"]


@pytest.mark.parametrize("config", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("pooler", HF_POOLERS)
def test_language_models_are_pooled_as_open_clip_does(config, pooler):
    transformers = pytest.importorskip("transformers")
    from open_clip.hf_model import HFTextEncoder

    config = transformers.AutoConfig.for_model(
        config, vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=16,
    )  # fmt: skip
    encoder = HFTextEncoder(
        "", 6, config=config, pooler_type=pooler, proj_type="mlp", output_tokens=True
    ).eval()
    pad = config.pad_token_id
    ids = torch.tensor([[3, 5, 6, 4, pad, pad], [3, 7, 4, pad, pad, pad]])
    tower = TextTower(torch.nn.ModuleDict({"text": encoder}), lambda texts, **_: ids.clone())
    cut = ids[:, :4]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(encoder(ids)[0], dim=-1)
        torch.testing.assert_close(tower.encode(tower.embed(cut), cut), expected)


@pytest.mark.parametrize(
    ("name", "value", "model"),
    [("pool_type", "none", "clip"), ("hf_pooler_type", "max_pooler", "biomedclip")],
)
def test_towers_without_a_vector_of_a_text_are_refused(
    name, value, model, request, tmp_path, monkeypatch, no_network
):
    """open_clip 3.3 gives all tokens' features for the one, and fails in the other."""
    folder = tmp_path / "model"
    shutil.copytree(request.getfixturevalue(f"{model}_folder"), folder)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model_cfg"]["text_cfg"][name] = value
    path.write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(folder))
    with pytest.raises(UserError, match=f"has {name} {value}, with which open_clip"):
        text_tower.weights_location(model)


def test_a_tower_whose_features_are_not_open_clips_is_refused(clip_folder, monkeypatch, no_network):
    """A kind of tower that a later open_clip may bring: never other features in silence."""
    monkeypatch.setenv(VARIABLE, str(clip_folder))
    encode = TextTower._encode_causal
    monkeypatch.setattr(TextTower, "_encode_causal", lambda *a: encode(*a).roll(1, -1))
    with pytest.raises(UserError, match="differ from open_clip's own"):
        load_text_tower("clip")


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


@pytest.mark.parametrize("words", [22, 23])
def test_a_text_may_fill_the_model(tower, words):
    """24 tokens are a start, 22 words and an end; CLIP's 77 are 75 words with both."""
    text = " ".join(["heart"] * words)
    if words == 22:
        assert tower.tokenize(["liver", text]).shape == (2, 24)
    else:
        with pytest.raises(UserError, match="24 tokens: heart heart"):
            tower.tokenize(["liver", text])


def test_clips_own_tokenizer_takes_75_tokens():
    tokenizer = pytest.importorskip("open_clip").get_tokenizer("ViT-B-32-quickgelu")
    ids = text_tower.token_ids(tokenizer, [" ".join(["heart"] * 75)])
    assert ids.shape == (1, 77)
    with pytest.raises(UserError, match="takes 77 tokens"):
        text_tower.token_ids(tokenizer, [" ".join(["heart"] * 76)])


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

    @pytest.mark.parametrize("length", [1, 2])
    def test_texts_without_a_start_are_refused(self, tower, length, monkeypatch):
        """As SigLIP's: the learned tokens would take the place of the words."""
        whole = tower.tokenize
        monkeypatch.setattr(tower, "tokenize", lambda texts: whole(texts)[:, 1:])
        with pytest.raises(UserError, match="after a token that starts each text"):
            PromptLearner(tower, {"a": ["heart"], "b": ["heart left"]}, length, True, seed=0)

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
