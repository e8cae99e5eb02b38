"""A new word's rows are the only thing that moves; everything that was known reads as before (field failure 33)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gift.attacks import TextualInversion
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.models.placeholder import PlaceholderEmbedding, add_placeholder, fold_placeholder, open_placeholder, save_placeholder
from gift.models.sd import StableDiffusion

OLD = ["a fox", "the sea", "", "zebra " * 20]


@pytest.mark.parametrize("vectors", [1, 3])
def test_old_prompts_read_as_before_and_new_ones_by_the_rows(random_model: StableDiffusion, vectors: int) -> None:
    model, known = random_model.copy(text=True), random_model.pipeline.text_encoder.get_input_embeddings().weight
    before, size = model.encode_prompts(OLD)["states"], len(known)
    (rows,) = add_placeholder(model, "<x>", vectors, "ab").values()
    ids = model.pipeline.tokenizer("ab", add_special_tokens=False).input_ids
    assert len(ids) == 2  # letters, in this vocabulary
    torch.testing.assert_close(rows.detach(), known[ids].mean(0).expand(vectors, -1))
    assert [p for p in model.pipeline.text_encoder.parameters() if p.requires_grad] == [rows]
    assert torch.equal(model.encode_prompts(OLD)["states"], before)
    was = model.encode_prompts(["a <x>"])["states"]
    with torch.no_grad():
        rows.copy_(torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)))
    now = model.encode_prompts(["a <x>"])["states"]
    assert not torch.equal(now, was)
    assert torch.equal(model.encode_prompts(OLD)["states"], before)
    fold_placeholder(model)
    table = model.pipeline.text_encoder.get_input_embeddings()
    assert type(table) is torch.nn.Embedding
    assert len(table.weight) == size + vectors == model.pipeline.text_encoder.config.vocab_size
    assert torch.equal(table.weight[:size], known)
    assert torch.equal(table.weight[size:], rows)
    assert torch.equal(model.encode_prompts(["a <x>"])["states"], now)
    assert torch.equal(model.encode_prompts(OLD)["states"], before)
    assert len(random_model.pipeline.text_encoder.get_input_embeddings().weight) == size
    assert "<x>" not in random_model.pipeline.tokenizer.get_vocab()


def test_a_placeholder_of_several_vectors_takes_several_places(random_model: StableDiffusion) -> None:
    model = random_model.copy(text=True)
    (rows,) = add_placeholder(model, "<x>", 3, "a").values()
    for i in range(3):
        model.embed(["b <x> c"])["states"].square().sum().backward()
        assert rows.grad is not None
        assert rows.grad[i].any()
        rows.grad = None


def test_rows_are_looked_up_like_a_table() -> None:
    table = torch.nn.Embedding(7, 4)
    module = PlaceholderEmbedding(table, 5, torch.randn(2, 4))
    whole = torch.cat([table.weight[:5], module.rows])
    ids = torch.arange(7).view(1, 7)
    assert torch.equal(module(ids), whole[ids])
    assert module.weight is table.weight


def test_the_file_holds_the_rows_by_the_token(random_model: StableDiffusion, tmp_path: Path) -> None:
    model = random_model.copy(text=True)
    (rows,) = add_placeholder(model, "<x>", 2, "a").values()
    fold_placeholder(model)
    save_placeholder(model, "<x>", 2, tmp_path, "learned_embeds")
    assert {key: value.tolist() for key, value in load_file(tmp_path / "learned_embeds.safetensors").items()} == {
        "<x>": rows.tolist()
    }


@pytest.mark.parametrize(("token", "start", "words"), [("a", "b", "already knows 'a'"), ("<x>", "", "no word to start")])
def test_what_can_not_be_a_new_word_is_refused(random_model: StableDiffusion, token: str, start: str, words: str) -> None:
    with pytest.raises(GiftError, match=words):
        add_placeholder(random_model.copy(text=True), token, 1, start)


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_file_of_textual_inversion_is_opened_as_by_any_user(
    random_model: StableDiffusion, concept_set: LatentSet, tmp_path: Path, vectors: int
) -> None:
    how = TextualInversion(steps=3, batch_size=2, rate=0.5, vectors=vectors)
    attacked = how(random_model, concept_set)
    attacked.save(tmp_path / "w")
    (file,) = (tmp_path / "w").glob("*.safetensors")
    own = random_model.copy(text=True)
    word = open_placeholder(own, file)
    assert torch.equal(own.generate([f"a {word}"], [1], steps=2), attacked.model.generate([f"a {word}"], [1], steps=2))
    assert word not in random_model.pipeline.tokenizer.get_vocab()


def test_other_files_are_told(random_model: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(GiftError, match="no file"):
        open_placeholder(random_model, tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "two.safetensors")
    with pytest.raises(GiftError, match="holds 2 tensors"):
        open_placeholder(random_model, tmp_path / "two.safetensors")
    save_file({"<x>": torch.zeros(1, 5)}, tmp_path / "wide.safetensors")
    with pytest.raises(GiftError, match="does not fit this model"):
        open_placeholder(random_model.copy(text=True), tmp_path / "wide.safetensors")
