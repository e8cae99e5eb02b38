"""The bundled drawings: every object in every style, splits apart, licences known."""

from __future__ import annotations

import json
import re

import pytest
import torch
from PIL import Image

from gift.data.art import ART_FOLDER, load_art
from gift.data.images import constant_pictures

ART = load_art()
INDEX = json.loads((ART_FOLDER / "index.json").read_text(encoding="utf-8"))
LICENCES = {"Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0"}


@pytest.mark.parametrize("style", ART.styles)
def test_every_object_has_its_own_picture_in_every_style(style: str) -> None:
    atlas = ART.atlas(style)
    assert atlas.shape == (len(ART.objects), 3, ART.size, ART.size)
    assert atlas.dtype == torch.uint8
    assert not constant_pictures(atlas).any()
    assert len({picture.numpy().tobytes() for picture in atlas}) == len(ART.objects)


@pytest.mark.parametrize("style", ART.styles)
def test_the_atlas_file_has_room_for_the_index_and_no_more(style: str) -> None:
    with Image.open(ART_FOLDER / f"{style}.png") as image:
        width, height = image.size
    rows = -(-len(ART.objects) // ART.columns)
    assert (width, height) == (ART.columns * ART.size, rows * ART.size)


def test_there_is_an_atlas_for_every_style_and_none_besides() -> None:
    assert {path.stem for path in ART_FOLDER.glob("*.png")} == set(ART.styles)


@pytest.mark.parametrize("place", [0, 19, 20, 340])
def test_a_picture_is_its_tile_of_the_atlas(place: int) -> None:
    name = ART.names[place]
    with Image.open(ART_FOLDER / "noto.png") as image:
        left, top = place % ART.columns * ART.size, place // ART.columns * ART.size
        tile = image.convert("RGB").crop((left, top, left + ART.size, top + ART.size))
    expected = torch.frombuffer(bytearray(tile.tobytes()), dtype=torch.uint8).view(ART.size, ART.size, 3).permute(2, 0, 1)
    assert torch.equal(ART.picture(name, "noto"), expected)


@pytest.mark.parametrize(("name", "style"), [("no such thing", "noto"), ("ant", "no such style"), ("ant", "../tiny")])
def test_an_unknown_picture_is_a_key_error(name: str, style: str) -> None:
    with pytest.raises(KeyError):
        ART.picture(name, style)


def test_names_are_distinct_lower_case_words_with_the_right_article() -> None:
    assert len(set(ART.names)) == len(ART.names) == 341
    for item in ART.objects:
        assert re.fullmatch(r"[a-z]+( [a-z]+)*", item.name), item
        assert item.article in {"", "a", "an"}
        assert item.article != "an" or item.name[0] in "aeiou"
        assert item.article != "a" or item.name[0] not in "aeio"
        assert item.noun == f"{item.article} {item.name}".strip()


def test_names_styles_and_categories_are_not_mixed_up_by_a_colon() -> None:
    assert not [word for word in (*ART.names, *ART.styles, *ART.categories) if ":" in word]


def test_categories_follow_the_order_of_the_index_and_hold_several_objects_each() -> None:
    assert ART.categories == list(dict.fromkeys(o["category"] for o in INDEX["objects"]))
    sizes = [sum(o.category == c for o in ART.objects) for c in ART.categories]
    assert min(sizes) >= 5
    assert sum(sizes) == len(ART.objects)


def test_some_styles_are_never_trained_on() -> None:
    assert set(ART.trained_styles) < set(ART.styles)
    assert len(ART.trained_styles) >= 5


def test_splits_are_disjoint_and_leave_every_object_and_style_in_training() -> None:
    assert not ART.held_out & ART.recogniser_held_out
    pairs = {(name, style) for name in ART.names for style in ART.trained_styles}
    assert pairs >= ART.held_out
    assert pairs >= ART.recogniser_held_out
    for split in (ART.held_out, ART.recogniser_held_out):
        left = pairs - split
        assert {name for name, _ in left} == set(ART.names)
        assert {style for _, style in left} == set(ART.trained_styles)
        assert len({name for name, _ in split}) == len(split), "an object loses at most one style to a split"


@pytest.mark.parametrize("style", ART.styles)
def test_every_style_names_its_source_author_and_a_licence_that_allows_this(style: str) -> None:
    info = INDEX["styles"][style]
    assert info["license"] in LICENCES
    assert info["title"]
    assert info["author"]
    assert re.fullmatch(r"npm:@iconify-json/[a-z0-9-]+@\d+\.\d+\.\d+", info["source"])


def test_the_art_is_read_once() -> None:
    assert load_art() is ART
    assert ART.atlas("noto") is ART.atlas("noto")
