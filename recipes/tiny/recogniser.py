"""Trains the recogniser on augmented drawings (never on generated ones) and measures it on what it did not see."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from gift.bench.neighbours import read_drawings
from gift.data.art import Art, load_art
from gift.data.augment import coarsen, degrade, move, recolour
from gift.metrics.recogniser import DRAWINGS, Recogniser, RecogniserConfig, load_recogniser
from gift.pixels import as_float

from .captions import caption
from .config import ASSETS, WORK
from .loop import Run

BATCH = 128
UNKNOWN_STYLE = -100  # the extra styles teach the object head only


def everything(art: Art) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """All drawings: uint8 pictures, object classes, style classes, and whether the recogniser may train on them."""
    n = len(art.objects)
    images = torch.cat([art.atlas(style) for style in art.styles])
    objects = torch.arange(n).repeat(len(art.styles))
    styles = torch.tensor([art.trained_styles.index(s) if s in art.trained_styles else UNKNOWN_STYLE for s in art.styles])
    may = torch.tensor([(o, s) not in art.recogniser_held_out for s in art.styles for o in art.names])
    return images, objects, styles.repeat_interleave(n), may


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """uint8 pictures to augmented floats, as the recogniser is trained and tested on."""
    return degrade(coarsen(recolour(move(as_float(images), generator), generator), generator), generator)


def vocabulary(art: Art) -> tuple[str, ...]:
    """Every word of the captions."""
    words = {w for o in art.objects for w in f"{o.name} {o.category}".split()}
    return tuple(sorted(words | {"a", "an", "in", "style", "picture", "of", *art.trained_styles}))


def accuracy(model: Recogniser, images: torch.Tensor, objects: torch.Tensor, styles: torch.Tensor) -> dict[str, float]:
    """Shares of pictures whose object and style are found."""
    with torch.no_grad():
        readings = [model(chunk) for chunk in images.split(256)]
    found = torch.cat([r.objects for r in readings]).argmax(1) == objects
    known = styles != UNKNOWN_STYLE
    style = (torch.cat([r.styles for r in readings]).argmax(1) == styles)[known]
    return {"pictures": len(images), "object": found.float().mean().item(), "style": style.float().mean().item()}


def train(steps: int) -> None:
    """Trains to `steps`, resuming if it can, and exports to the package's data."""
    art = load_art()
    images, objects, styles, may = everything(art)
    torch.manual_seed(0)
    model = Recogniser(RecogniserConfig(tuple(art.names), art.trained_styles, vocabulary(art)))
    run = Run(WORK / "recogniser.pt", model, peak=2e-3, steps=steps)
    pool = may.nonzero().flatten()

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        pick = pool[torch.randint(len(pool), (BATCH,), generator=generator)]
        seen = model(augmented(images[pick], generator))
        value = F.cross_entropy(seen.objects, objects[pick], label_smoothing=0.05)
        value = value + 0.5 * F.cross_entropy(seen.styles, styles[pick], ignore_index=UNKNOWN_STYLE)
        half = (styles[pick] != UNKNOWN_STYLE).nonzero().flatten()[:64]
        texts = [caption(art, int(objects[i]), art.trained_styles[int(styles[i])], generator, plain=True) for i in pick[half]]
        logits = model.log_scale.exp() * seen.embedding[half] @ model.embed_text(texts).T
        same = torch.tensor([[a == b for b in texts] for a in texts]).float()
        target = same / same.sum(1, keepdim=True)
        return value + 0.25 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))

    run.go(loss)
    run.average_model()
    model.save(ASSETS / "recogniser")
    keep_drawings()
    measure()


def keep_drawings() -> None:
    """Writes the recogniser's embeddings of all drawings beside it."""
    file = ASSETS / "recogniser" / DRAWINGS
    save_file({"embedding": read_drawings(load_recogniser())}, file)
    file.chmod(0o644)  # safetensors writes 0600, which an installed package must not have


def measure() -> dict[str, dict[str, float]]:
    """Accuracy on fresh augmentations of the training pictures and on whole pairs that were kept out."""
    art = load_art()
    images, objects, styles, may = everything(art)
    model = load_recogniser()
    generator = torch.Generator().manual_seed(20_000_001)  # no training step has this seed
    result = {}
    for name, which in (("trained pairs, new augmentations", may), ("held-out pairs", ~may)):
        seen = augmented(images[which], generator)
        result[name] = accuracy(model, seen, objects[which], styles[which])
        print(f"recogniser, {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in result[name].items()))
    return result
