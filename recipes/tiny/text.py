"""The bundled model's own CLIP tokenizer and text encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gift.data.art import Art

from .captions import category_noun
from .config import ASSETS, MAX_TOKENS, TEXT_WIDTH, WORK

BOS, EOS, END = "<|startoftext|>", "<|endoftext|>", "</w>"
# Words for prompts outside the captions, so that they are not spelt out letter by letter.
EXTRA = "photo drawing painting icon emoji red green blue yellow white black small big with and the on sks"


def open_tokenizer(art: Art) -> CLIPTokenizer:
    """The tokenizer that was made before, for this work or for the shipped model; else a new one.

    Text encoder weights are worth nothing under another order of the tokens, and the trainer breaks ties by chance.
    """
    made, shipped = WORK / "tokenizer", ASSETS / "tiny" / "tokenizer"
    if not (made / "vocab.json").exists():
        if not (shipped / "vocab.json").exists():
            return make_tokenizer(art)
        made.mkdir(parents=True, exist_ok=True)
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(shipped / name, made / name)
    return read_tokenizer(made)


def make_tokenizer(art: Art) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's files in which every caption word is one token."""
    words = {w for o in art.objects for w in f"{o.name} {category_noun(o.category)}".split()}
    words |= {"a", "an", "in", "style", "picture", "of", *art.styles, *EXTRA.split()}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(end_of_word_suffix=END))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=20_000, min_frequency=1, initial_alphabet=alphabet, end_of_word_suffix=END, show_progress=False
    )
    raw.train_from_iterator(sorted(words), trainer)
    merges = [tuple(pair) for pair in json.loads(raw.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(c + END for c in alphabet), *("".join(pair) for pair in merges), BOS, EOS]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    folder = WORK / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    return read_tokenizer(folder)


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """Opens the two files with the recipe's length."""
    vocabulary = json.loads((folder / "vocab.json").read_text())
    merges = [tuple(line.split(" ")) for line in (folder / "merges.txt").read_text().splitlines()[1:]]
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, bos_token=BOS, eos_token=EOS, unk_token=EOS, pad_token=EOS, model_max_length=MAX_TOKENS
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A fresh three-layer CLIP text model, trained together with the denoiser."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
