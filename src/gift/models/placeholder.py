"""New words for a text encoder: placeholder tokens whose embeddings alone are trained (Textual Inversion, Custom Diffusion)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from gift.errors import GiftError
from gift.models.base import DenoisingModel
from gift.models.loading import check_safetensors


class PlaceholderEmbedding(nn.Module):
    """A frozen embedding table, the last rows of which are weights of their own: no optimiser can touch the others.

    Attributes:
        table: the whole frozen table, (V + n, width).
        start: the first new row, V.
        rows: the new rows, (n, width).
    """

    def __init__(self, table: nn.Embedding, start: int, rows: torch.Tensor) -> None:
        super().__init__()
        self.table, self.start = table, start
        self.rows = nn.Parameter(rows)

    @property
    def weight(self) -> torch.Tensor:
        """The table, for readers that ask for its type or size."""
        return self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings (..., width) of ids (...)."""
        new = (ids >= self.start) & (ids < self.start + len(self.rows))
        own = functional.embedding(torch.where(new, ids - self.start, 0), self.rows)
        return torch.where(new[..., None], own, self.table(ids))


def names_of(token: str, vectors: int) -> list[str]:
    """The tokens of a placeholder: '<x>', '<x>_1', … as diffusers reads them."""
    return [token, *(f"{token}_{i}" for i in range(1, vectors))]


def add_placeholder(model: DenoisingModel, token: str, vectors: int, initialiser: str) -> dict[str, nn.Parameter]:
    """Teaches every tokenizer a new token and gives the text encoders its rows, which alone require gradients in them.

    Args:
        model: a copy with text encoders and tokenizers of its own, changed in place.
        token: the new word.
        vectors: how many rows it has.
        initialiser: the word as whose embedding each row starts: the mean over its tokens (diffusers' trainer asks for one token).

    Raises:
        GiftError: the token is known already, or the initialiser has no tokens.
    """
    rows = {}
    for part, encoder in model.text_encoders.items():
        tokenizer, names = model.tokenizers[part], names_of(token, vectors)
        if known := {*names} & {*tokenizer.get_vocab()}:
            raise GiftError(f"the tokenizer already knows '{min(known)}'; choose another placeholder, such as '<my-concept>'")
        ids = tokenizer(initialiser, add_special_tokens=False).input_ids
        if not ids:
            raise GiftError(f"'{initialiser}' is no word to start the placeholder '{token}' from; give one, such as 'picture'")
        tokenizer.add_tokens(names)
        start = tokenizer.convert_tokens_to_ids(token)
        if start + vectors > len(encoder.get_input_embeddings().weight):  # some tables have spare rows
            encoder.resize_token_embeddings(start + vectors, mean_resizing=False)
        table = encoder.get_input_embeddings()
        encoder.requires_grad_(False)
        new = PlaceholderEmbedding(table, start, table.weight[ids].mean(0).repeat(vectors, 1))
        encoder.set_input_embeddings(new)
        rows[f"{part}.{token}"] = new.rows
    return rows


@torch.no_grad()
def fold_placeholder(model: DenoisingModel) -> None:
    """Writes the learned rows into plain embedding tables, so that the text encoders are of their usual classes again."""
    for encoder in model.text_encoders.values():
        module = encoder.get_input_embeddings()
        if isinstance(module, PlaceholderEmbedding):
            module.table.weight[module.start : module.start + len(module.rows)] = module.rows
            encoder.set_input_embeddings(module.table)


def save_placeholder(model: DenoisingModel, token: str, vectors: int, folder: Path, stem: str) -> None:
    """Writes a folded token to `{stem}.safetensors`, for `pipeline.load_textual_inversion(folder, weight_name=...)`.

    A second text encoder's rows go to `{stem}_2.safetensors`, as in diffusers' trainer for SDXL.
    """
    for part, encoder in model.text_encoders.items():
        ids = model.tokenizers[part].convert_tokens_to_ids(names_of(token, vectors))
        rows = encoder.get_input_embeddings().weight[ids].detach().cpu().contiguous()
        save_file({token: rows}, folder / f"{stem}{part.removeprefix('text_encoder')}.safetensors", metadata={"format": "pt"})


def open_placeholder(model: DenoisingModel, file: Path) -> str:
    """Teaches a model the word of a Textual Inversion file, as any user of diffusers would.

    Args:
        model: its tokenizer and text encoder are changed in place.
        file: safetensors with one embedding, named by its word: (width,) or (vectors, width).

    Returns:
        The word.

    Raises:
        GiftError: no such file, another kind of file, or one for another text encoder.
    """
    if not file.is_file():
        raise GiftError(f"no file {file}; give the .safetensors that Textual Inversion wrote")
    check_safetensors(file)
    names = list(load_file(file))
    if len(names) != 1:
        raise GiftError(f"{file} holds {len(names)} tensors; a Textual Inversion file has one embedding, named by its word")
    if not hasattr(model.pipeline, "load_textual_inversion"):
        raise GiftError(f"a {type(model.pipeline).__name__} reads no Textual Inversion")
    try:
        model.pipeline.load_textual_inversion(str(file.parent), weight_name=file.name, token=names[0])
    except (ValueError, RuntimeError, KeyError) as error:
        raise GiftError(f"{file} does not fit this model: {' '.join(str(error).split())[:160]}") from error
    return names[0]
