"""The model card: what the hub reads of it, the record's numbers and no others, and honesty about what is not known."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from safetensors.torch import save_file

from gift.errors import GiftError
from gift.report.card import write_card
from gift.report.evidence import read_evidence
from gift.report.made import match, read_made
from gift.report.risk import Line, _came_back
from gift.report.words import number, percent
from tests.report import made_grid

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
ESD_GIFT: dict[str, dict[str, Any]] = {"esd": {"steps": 100}, "gift": {"steps": 100}}
Edit = Callable[[dict[str, Any]], object]


def save_model(folder: Path, value: float = 0.0) -> Path:
    """What a card needs of a diffusers folder."""
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.1"}')
    save_file({"weight": torch.full((3,), value)}, folder / "unet" / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder as `gift immunize` leaves it."""
    out = tmp_path / "out"
    save_model(out / "model", 1.0)
    immunized(out)
    return out


def immunized(out: Path, chain: dict[str, dict[str, Any]] = ESD_GIFT, **config: Any) -> None:
    record = {
        "methods": [{"method": name, "arguments": arguments} for name, arguments in chain.items()],
        "config": {"model": "tiny", "concept": "mushroom", "seed": 0, "concept_pictures": 48, "safe_pictures": 192, **config},
        "seconds": 1.0,
    }
    (out / "immunize.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture
def demo(folder: Path) -> Path:
    """A demonstration's folder with the model that it saved and the methods' settings as it writes them."""
    record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    record["settings"] = {"model": "tiny", "concept": "mushroom", "attack_pictures": 48, "evaluation_pictures": 36, "seed": 0}
    for method in record["methods"]:
        parts = ["none"] if method["method"] == "original" else dict.fromkeys(["esd", method["method"]])
        method["arguments"] = {name: {"steps": 200, "rate": 1e-4} for name in parts}
    (folder / "result.json").write_text(json.dumps(record), encoding="utf-8")
    save_model(folder / "model", 2.0)
    return folder


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """A grid's folder."""
    folder = tmp_path / "grid"
    folder.mkdir()
    made_grid.write(folder, made_grid.every_cell())
    return folder


def change(folder: Path, edit: Edit) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    edit(record)
    (folder / "result.json").write_text(json.dumps(record), encoding="utf-8")
    return record


def card(model: Path, **options: Any) -> str:
    return write_card(model, **options).path.read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    return re.split(r"(?m)^## ", text.partition(f"\n## {title}\n")[2])[0]


def table(text: str, title: str) -> list[dict[str, str]]:
    """The rows of a section's table, as a reader sees them."""
    tokens = READER.parse(section(text, title))
    cells = [tokens[i + 1] for i, token in enumerate(tokens) if token.type in {"th_open", "td_open"}]
    values = ["".join(child.content for child in token.children or []) for token in cells]
    width = sum(token.type == "th_open" for token in tokens)
    return [dict(zip(values[:width], values[i : i + width], strict=True)) for i in range(width, len(values), width)]


def test_the_front_matter_is_what_the_hub_reads(demo: Path) -> None:
    written = write_card(demo / "model", evidence=demo, base_model="someone/base-model", license="CreativeML-OpenRAIL-M")
    assert written.path == demo / "model" / "README.md"
    assert written.notes == []
    assert ModelCard.load(written.path).data.to_dict() == {
        "base_model": "someone/base-model",
        "base_model_relation": "finetune",
        "license": "creativeml-openrail-m",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["gift", "immunization", "concept-erasure", "safety"],
    }


def test_a_name_that_is_no_id_of_the_hub_stands_in_the_text_alone(mine: Path) -> None:
    written = write_card(mine / "model", base_model="our own | model")
    data = ModelCard.load(written.path).data.to_dict()
    assert "base_model" not in data
    assert "base_model_relation" not in data
    assert "- Base model: our own \\| model\n" in written.path.read_text(encoding="utf-8")
    assert any("is not an id of the hub" in note for note in written.notes)


def test_a_recorded_id_is_the_base_unless_a_folder_has_that_name(mine: Path) -> None:
    immunized(mine, model="someone/base")
    assert ModelCard(card(mine)).data["base_model"] == "someone/base"
    (mine.parent / "someone" / "base").mkdir(parents=True)
    assert "base_model" not in ModelCard(card(mine)).data.to_dict()


def test_the_bundled_models_licence_is_known(mine: Path, tiny: Path) -> None:
    data = ModelCard(card(mine)).data
    assert (data["license"], data["license_name"]) == ("other", "see-notice")
    assert "license" not in ModelCard(card(mine, base_model="someone/base")).data.to_dict()


def test_the_numbers_are_the_demonstrations(demo: Path) -> None:
    record = change(demo, lambda r: None)
    shown = {row["Attack"]: row for row in table(card(demo / "model", evidence=demo), "Results")}
    (row,) = [r for r in record["rows"] if (r["method"], r["attack"]) == ("gift", "lora")]
    assert shown["LoRA, rank 4"] == {
        "Concept": "mushroom",
        "Attack": "LoRA, rank 4",
        "Seeds": "0",
        "Original": number(record["original_score"]),
        "Before": number(row["score_before"]),
        "After": number(row["score_after"]),
        "Control": number(record["attacks"][0]["control_score"]),
        "Relearning reduction": percent(row["relearning_reduction"]).replace("\N{NARROW NO-BREAK SPACE}", " "),
        "Steps to recover": "not within 150 steps",
        "Safe accuracy": number(row["safe_accuracy"]),
        "FID": number(row["fid"]),
    }


def test_neighbours_are_told_where_they_were_measured(demo: Path) -> None:
    text = card(demo / "model", evidence=demo)
    assert (
        "Of the concept's nearest neighbours (toadstool and acorn) it still draws 0.75 so that the recogniser finds them "
        "(original model: 0.88)." in text
    )
    change(demo, lambda r: [method.pop("neighbours") for method in r["methods"]])
    assert "nearest neighbours" not in card(demo / "model", evidence=demo)


def test_the_distance_to_drawings_is_told_where_it_was_measured(demo: Path) -> None:
    told = "FID against drawings of the same prompts is 22.4 (original model: 21.6)."
    assert told in card(demo / "model", evidence=demo)
    change(demo, lambda r: [method.pop("real") for method in r["methods"]])
    assert "drawings of the same prompts" not in card(demo / "model", evidence=demo)


def test_attacks_are_told_with_steps_rate_and_pictures(demo: Path) -> None:
    change(demo, lambda r: r["attacks"][1]["arguments"].update(shots=6))
    text = card(demo / "model", evidence=demo)
    rows = {row["Attack"]: row for row in table(text, "What was attacked, and how")}
    assert [rows["LoRA, rank 4"][key] for key in ("Steps", "Rate", "Pictures")] == ["150", "0.001", "48"]
    assert rows["Full fine-tuning"]["Pictures"] == "6 of 48"
    assert "These very weights were attacked." in text


def test_a_cells_own_number_of_pictures_is_told(mine: Path, grid: Path) -> None:
    rows = made_grid.every_cell()
    for row in rows:
        row["settings"]["sizes"] = {"attack_pictures": 7 if row["attack"] == "full" else 48}
        if "attack_found" in row:
            row["pictures_found"] = 11
    made_grid.write(grid, rows)
    told = {row["Attack"]: row["Pictures"] for row in table(card(mine, evidence=grid), "What was attacked, and how")}
    assert told["Full fine-tuning"] == "7"
    assert told["LoRA"] == "48"
    assert {pictures for attack, pictures in told.items() if attack not in {"LoRA", "Full fine-tuning"}} == {"11"}


def test_an_inconclusive_attack_is_never_protection(demo: Path) -> None:
    text = card(demo / "model", evidence=demo)
    (row,) = [row for row in table(text, "Results") if row["Attack"] == "Full fine-tuning"]
    assert row["Relearning reduction"] == row["Steps to recover"] == "inconclusive"
    risk = section(text, "Residual risk")
    assert "Full fine-tuning (seed 0) says nothing about the defence" in risk
    assert "Full fine-tuning did not" not in risk


def test_a_collapsed_model_is_never_protection(demo: Path) -> None:
    change(demo, lambda r: [row["flags"].append("collapsed: 60 % of pictures") for row in r["rows"] if row["method"] == "gift"])
    text = card(demo / "model", evidence=demo)
    assert {row["Steps to recover"] for row in table(text, "Results")} == {"collapsed", "inconclusive"}
    risk = section(text, "Residual risk")
    assert risk.strip().startswith("- No attack here says how hard the concept is to bring back. Treat the model as unprotected.")
    assert "pictures have collapsed, which is damage" in risk
    assert "did not bring the concept back to half" not in risk


@pytest.mark.parametrize(
    ("curve", "back", "says"),
    [
        (
            [[0, 0.0], [10, 0.2], [75, 0.81], [150, 0.6]],
            75,
            "brought the concept back: to half of the original model's score after 75",
        ),
        ([[0, 0.6], [150, 0.9]], 0, "the concept was there before the attack already"),
        (
            [[0, 0.0], [20, 0.3], [150, 0.1]],
            None,
            "did not bring the concept back to half of the original model's score within 150",
        ),
    ],
)
def test_the_residual_risk_says_how_far_it_came_back(demo: Path, curve: list[list[float]], back: int | None, says: str) -> None:
    def edit(record: dict[str, Any]) -> None:
        for row in record["rows"]:
            if (row["method"], row["attack"]) == ("gift", "lora"):
                row.update(curve=curve, score_before=curve[0][1], score_after=curve[-1][1], steps_to_recover=back)

    change(demo, edit)
    risk = section(card(demo / "model", evidence=demo), "Residual risk")
    assert says in risk
    assert number(max(score for step, score in curve if step)) in risk
    assert "No search for the worst attack was run" in risk
    assert "One seed was measured" in risk
    assert "cannot be recalled" in risk
    assert "prevent" not in risk


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([0, 50, 100], "already in 1 of 3 seeds, {half}. In 2 more it came back, at the earliest after 50 steps. "),
        ([None, 0, 100], "already in 1 of 3 seeds, {half}. In 1 more it came back, at the earliest after 100 steps. "),
        ([0, 0, None], "already in 2 of 3 seeds, {half}. The highest"),
        (
            [50, None, 20],
            "brought the concept back in 2 of 3 seeds: to half of the original model's score at the earliest after 20",
        ),
    ],
)
def test_in_how_many_seeds_it_came_back_and_when(demo: Path, steps: list[int | None], says: str) -> None:
    cell = next(cell for cell in read_evidence(demo).cells if cell.scores)
    assert cell.scores is not None
    cells = [replace(cell, seed=seed, scores=replace(cell.scores, recovered_at=step)) for seed, step in enumerate(steps)]
    assert says.format(half="at half of the original model's score or more") in _came_back(Line(tuple(cells)), several=False)


def test_methods_that_ended_lower_are_named(demo: Path) -> None:
    assert "lower than this model" not in section(card(demo / "model", evidence=demo), "Residual risk")
    change(
        demo, lambda r: [row.update(score_after=0.02) for row in r["rows"] if (row["method"], row["attack"]) == ("imma", "lora")]
    )
    risk = section(card(demo / "model", evidence=demo), "Residual risk")
    assert "lower than this model ended IMMA after ESD (0.02 with LoRA (rank 4), this one 0.13)" in risk


def test_attacks_shorter_than_five_simulated_ones_are_told(demo: Path) -> None:
    def attacker(steps: int, **more: float) -> Edit:
        told = {"steps": steps, **more}
        return lambda r: [m["arguments"]["gift"].update(attacker=told) for m in r["methods"] if m["method"] == "gift"]

    change(demo, attacker(30))
    assert "fewer than 5 times" not in card(demo / "model", evidence=demo)
    change(demo, attacker(31))
    assert "150 steps, fewer than 5 times the 31 of the attacker" in card(demo / "model", evidence=demo)
    change(demo, attacker(4, replay=0.91))
    assert "fewer than 5 times" not in card(demo / "model", evidence=demo)
    change(demo, attacker(4, replay=0.92))
    assert "150 steps, fewer than 5 times the 31 of the attacker" in card(demo / "model", evidence=demo)
    change(demo, attacker(4, replay=0.95))
    assert "150 steps, fewer than 5 times the 50 of the attacker" in card(demo / "model", evidence=demo)


def test_flags_are_told_with_their_meaning(demo: Path) -> None:
    text = section(card(demo / "model", evidence=demo), "Residual risk")
    assert "- single seed: no interval over seeds. The run was made once." in text
    assert "Raised for 1 of 2 results." in text


def test_pictures_lie_beside_the_card(demo: Path, tmp_path: Path) -> None:
    path = write_card(demo / "model", evidence=demo, output=tmp_path / "elsewhere" / "CARD.md").path
    links = re.findall(r"!\[[^\n]*\]\(([^)]*)\)", path.read_text(encoding="utf-8"))
    sources = ["original-before-concept", "original-before-safe", "gift-before-concept"]
    sources += ["esd-lora-concept", "esd-full-concept", "gift-lora-concept", "gift-full-concept", "gift-before-safe"]
    there = {(path.parent / link).read_bytes() for link in links}
    assert len(links) == len(there) == len(sources)
    assert all(re.fullmatch(r"card/\d\d-[a-z0-9-]+\.png", link) for link in links)
    assert there == {(demo / "pictures" / f"{name}.png").read_bytes() for name in sources}
    assert not (demo / "model" / "card").exists()


@pytest.mark.parametrize("file", ["pictures/none.png", "../../etc/passwd", "result.json"])
def test_a_picture_that_cannot_be_copied_stops_it_before_anything_is_written(demo: Path, file: str) -> None:
    change(demo, lambda r: r["grids"][-1].update(file=file))
    with pytest.raises(GiftError, match="picture"):
        write_card(demo / "model", evidence=demo)
    assert not (demo / "model" / "README.md").exists()
    assert not (demo / "model" / "card").exists()


def test_without_evidence_nothing_was_measured(mine: Path) -> None:
    text = card(mine)
    assert "**Nothing was measured for this card.**" in text
    assert section(text, "Results").strip() == "Nothing was measured."
    assert "Not known: nothing was measured. Treat the model as unprotected." in text
    assert "- Method: GIFT after Erased (ESD)\n" in text
    assert "gift attack path/to/this/folder --concept mushroom" in text
    assert "not within" not in text
    assert "![" not in text


def test_a_model_of_unknown_make_is_told_so(tmp_path: Path) -> None:
    text = card(save_model(tmp_path / "my model"))
    assert "How these weights were made is not recorded." in text
    assert "Nothing was measured" in text
    assert "immunized against" not in text


def test_a_grids_numbers_are_means_over_seeds_that_count(mine: Path, grid: Path) -> None:
    immunized(mine, concept=["mushroom", "style:noto"])
    rows = {
        (row["Concept"], row["Attack"], row["Relearning reduction"] == "inconclusive"): row
        for row in table(card(mine, evidence=grid), "Results")
    }
    cells = {(c["attack"], c["concept"], c["seed"]): c for c in made_grid.every_cell() if c["method"] == "esd+gift"}
    both = rows["mushroom", "LoRA", False]
    ends = [cells["lora", "mushroom", seed]["score_after"] for seed in (0, 1)]
    assert both["Seeds"] == "0, 1"
    middle, _, interval = both["After"].partition(" ")
    assert float(middle) == pytest.approx(fmean(ends), abs=0.0051)
    assert interval == f"({number(ends[0])} to {number(ends[1])})"
    alone = rows["style:noto", "Full fine-tuning", False]
    assert (alone["Seeds"], alone["After"]) == ("0", number(cells["full", "style:noto", 0]["score_after"]))
    void = rows["style:noto", "Full fine-tuning", True]
    assert (void["Seeds"], void["Steps to recover"]) == ("1", "inconclusive")


def test_a_failed_cell_is_told_and_has_no_numbers(mine: Path, grid: Path) -> None:
    immunized(mine, {"esd": {"steps": 100}, "imma": {"steps": 100}}, concept="style:noto")
    text = card(mine, evidence=grid)
    (row,) = [row for row in table(text, "Results") if row["Steps to recover"] == "failed"]
    assert (row["Attack"], row["Seeds"], row["After"], row["FID"]) == ("LoRA", "1", "–", "–")
    assert "LoRA (seed 1) could not be computed." in text


def test_a_search_is_told_with_what_it_found(mine: Path, grid: Path) -> None:
    text = card(mine, evidence=grid)
    assert "A search tried 24 attacks" in text
    assert "No search" not in text
    found = [
        row for row in table(text, "What was attacked, and how") if row["Attack"].startswith("Worst attack found (mushroom, seed ")
    ]
    assert [row["Rate"] for row in found] == ["0.004"] * 2
    risk = section(text, "Residual risk").strip().splitlines()
    assert risk[0].startswith("- Worst attack found (LoRA) did not")


def test_the_grids_pictures_and_configuration_are_on_the_card(mine: Path, grid: Path) -> None:
    text = card(mine, evidence=grid)
    copied = sorted((mine / "model" / "card").iterdir())
    assert len(copied) == text.count("](card/") == 4  # this method and the undefended weights under two attacks
    assert "gift bench config.yaml" in text
    assert "trials: 24" in section(text, "How to reproduce")


def test_numbers_of_other_weights_are_said_to_be_so(mine: Path, grid: Path, demo: Path) -> None:
    immunized(mine, seed=7, safe_pictures=5, concept=["mushroom", "owl"], concept_images="/home/me/pictures")
    text = card(mine, evidence=grid)
    assert "Not these very weights were attacked" in text
    for difference in (
        "the seed was 7, the measured models' 0 and 1",
        "this model was given pictures of the concept",
        "with 5 drawn pictures of other things",
        "several concepts at once",
        "nothing was measured for “owl”",
    ):
        assert difference in text
    immunized(mine, {name: {"steps": 200, "rate": 1e-4} for name in ("esd", "gift")})
    assert "Not these very weights were attacked" in card(mine, evidence=demo)


def test_several_concepts_at_once_are_told_from_one_each(mine: Path, grid: Path) -> None:
    group, rows = ["style:noto", "mushroom"], made_grid.every_cell()
    both = [
        {**row, "method": "both", "settings": {**row["settings"], "group": group}} for row in rows if row["method"] == "esd+gift"
    ]
    made_grid.write(grid, rows + both)
    evidence = read_evidence(grid)
    for concept, label in ((["mushroom", "style: noto"], "both"), ("mushroom", "esd+gift")):
        immunized(mine, concept=concept)
        found = match(mine / "model", read_made(mine), evidence)
        assert (found.label, [d for d in found.differences if "at once" in d]) == (label, [])
    immunized(mine, concept=["mushroom", "style:noto", "owl"])
    assert "against several concepts at once, the measured models against one each" in card(mine, evidence=grid)
    made_grid.write(grid, [row for row in rows if row["method"] != "esd+gift"] + both)
    assert "measured models were immunized against “mushroom” and “style:noto” at once" in card(mine, evidence=grid)


@pytest.mark.parametrize(
    ("chain", "config", "says"),
    [
        ({"esd": {"steps": 100}, "gift": {"steps": 99}}, {}, "it was made with gift.steps 99, and the record's with 100"),
        ({"gift": {"steps": 100}, "esd": {"steps": 100}}, {}, "it was made by gift+esd, and the record's methods are none"),
        ({"esd": {"steps": 100}, "gift": {"steps": 100, "rate": 1}}, {}, "gift.rate 1, and the record's with absent"),
        (ESD_GIFT, {"concept": "owl"}, "its concept is owl, and the record's is mushroom and style:noto"),
        (ESD_GIFT, {"model": "other"}, "its base model is other, and the record's is tiny"),
    ],
)
def test_a_record_of_another_model_is_refused(mine: Path, grid: Path, chain: Any, config: Any, says: str) -> None:
    immunized(mine, chain, **config)
    with pytest.raises(GiftError, match="is not about") as caught:
        write_card(mine, evidence=grid)
    assert says in str(caught.value)
    assert not (mine / "model" / "README.md").exists()


def test_weights_of_unknown_make_are_matched_by_their_bytes_alone(demo: Path, tmp_path: Path) -> None:
    same, other = save_model(tmp_path / "same", 2.0), save_model(tmp_path / "other", 3.0)
    assert "These very weights were attacked." in card(same, evidence=demo)
    with pytest.raises(GiftError, match="nothing says how"):
        write_card(other, evidence=demo)


def test_a_card_of_somebody_else_is_kept(mine: Path) -> None:
    path = mine / "model" / "README.md"
    path.write_text("# Mine\n")
    with pytest.raises(GiftError, match=r"was not written by gift; .*--force"):
        write_card(mine)
    assert path.read_text() == "# Mine\n"
    assert "Nothing was measured" in card(mine, force=True)


def test_gifts_own_card_is_replaced_unless_somebody_wrote_in_it(mine: Path, grid: Path) -> None:
    first = card(mine)
    assert card(mine) == first
    path = mine / "model" / "README.md"
    assert "Nothing was measured" not in card(mine, evidence=grid)
    changed = path.read_text().replace("## Results", "My own words.\n\n## Results")
    path.write_text(changed)
    with pytest.raises(GiftError, match=r"was changed after gift wrote it; .*--force"):
        write_card(mine)
    assert path.read_text() == changed


def pictures(path: Path) -> set[str]:
    """What a card shows."""
    return set(re.findall(r"\]\((card/[^)]*)\)", path.read_text(encoding="utf-8")))


def test_pictures_of_the_card_before_go_and_a_users_files_stay(demo: Path) -> None:
    path = write_card(demo / "model", evidence=demo).path
    before = pictures(path)
    kept = [path.parent / "card" / name for name in ("mine.png", "99-mine.png", "notes.txt")]
    for file in kept:
        file.write_bytes(b"a user's")
    change(demo, lambda r: r.update(grids=r["grids"][1:]))
    write_card(demo / "model", evidence=demo)
    after = pictures(path)
    assert before - after
    assert {file.name for file in (path.parent / "card").iterdir()} == {Path(link).name for link in after} | {f.name for f in kept}
    write_card(demo / "model")
    assert pictures(path) == set()
    assert sorted((path.parent / "card").iterdir()) == sorted(kept)
    assert {file.read_bytes() for file in kept} == {b"a user's"}


def test_an_empty_folder_of_pictures_goes_too(demo: Path) -> None:
    path = write_card(demo / "model", evidence=demo).path
    next(iter((path.parent / "card").iterdir())).unlink()
    write_card(demo / "model")
    assert not (path.parent / "card").exists()


def test_pictures_that_another_card_shows_stay(demo: Path) -> None:
    other = write_card(demo / "model", evidence=demo, output=demo / "model" / "OTHER.md").path
    write_card(demo / "model", evidence=demo)
    write_card(demo / "model")
    assert {f"card/{file.name}" for file in (other.parent / "card").iterdir()} == pictures(other)


@pytest.mark.parametrize("foreign", ["# Mine\n\n![x](card/01-x.png)\n", None])
def test_what_a_card_of_somebody_else_shows_stays(demo: Path, foreign: str | None) -> None:
    path = write_card(demo / "model", evidence=demo).path
    (path.parent / "card" / "01-x.png").write_bytes(b"mine")
    text = path.read_text(encoding="utf-8").replace("## Results", "![x](card/01-x.png)\n\n## Results")
    path.write_text(foreign or text, encoding="utf-8")
    write_card(demo / "model", force=True)
    assert (path.parent / "card" / "01-x.png").read_bytes() == b"mine"


def shape(text: str) -> list[str]:
    """The card's structure: every block and inline element that is not plain text."""
    tokens = READER.parse(ModelCard(text).text)
    inline = [child.type for token in tokens for child in token.children or []]
    return [token.type for token in tokens] + [kind for kind in inline if kind not in {"text", "text_special", "softbreak"}]


EVIL = [
    "a|b\nc",
    "</details><script>alert(1)</script>",
    "![x](http://e.vil/x.png)",
    "\n---\nlicense: mit\n---\n# x",
    "```\n# x\n```",
    "- 1. > x",
]


@pytest.mark.parametrize("evil", EVIL)
def test_names_from_a_demonstration_break_nothing(demo: Path, evil: str) -> None:
    before = card(demo / "model", evidence=demo)

    def edit(record: dict[str, Any]) -> None:
        record["commit"] = record["version"] = record["concept"] = record["model"] = evil
        record["machine"] = {"cpus": evil, "torch": evil, "python": evil}
        record["settings"] |= {"model": evil, "evaluation_pictures": evil, "attack_pictures": evil, "seed": evil}
        record["attacks"][0] |= {"title": evil, "arguments": {"rate": evil, "steps": evil, evil: evil}}
        for method in record["methods"]:
            method["title"] = method["about"] = evil
            method["arguments"] = {name: {"attacker": {"steps": evil}, evil: evil} for name in method["arguments"]}
        for row in record["rows"]:
            row["concept"] = evil
            row["flags"] = [evil, *row["flags"][1:]]
        for sheet in record["grids"]:
            sheet["prompts"] = [evil] * len(sheet["prompts"])

    change(demo, edit)
    after = card(demo / "model", evidence=demo)
    assert shape(after) == shape(before)
    assert ModelCard(after).data.to_dict() == {k: v for k, v in ModelCard(before).data.to_dict().items() if "license" not in k}
    text = READER.render(ModelCard(after).text)
    assert "<script" not in text.replace("&lt;script", "")
    assert text.count("e.vil/x.png") >= 5 if "e.vil" in evil else True
    assert re.findall(r'<img src="([^"]*)"', text) == re.findall(r'<img src="([^"]*)"', READER.render(ModelCard(before).text))


@pytest.mark.parametrize("evil", EVIL)
def test_names_from_a_grid_and_of_a_users_break_nothing(mine: Path, grid: Path, evil: str) -> None:
    before = card(mine, evidence=grid)
    rows = made_grid.every_cell()
    for row in rows:
        row["concept"] = row["concept"].replace("mushroom", evil)
        row["libraries"] = {"gift": evil}
        row["flags"] = [evil, *row["flags"][1:]]
        row["model"] = evil
        row["settings"]["attack"] = {"name": row["attack"], "steps": evil}
    made_grid.write(
        grid, rows, grid={"models": [evil], "control": "esd", "search": {"trials": 24}, "sizes": {"attack_pictures": evil}}
    )
    immunized(mine, concept=evil, model=evil)
    written = write_card(mine, evidence=grid)
    after = written.path.read_text(encoding="utf-8")
    assert shape(after) == shape(before)
    assert not [note for note in written.notes if "\n" in note]


def test_places_on_the_makers_machine_stay_there(mine: Path) -> None:
    immunized(mine, model="/home/me/base", concept_images="/home/me/pictures", safe_images="~/others")
    text = card(mine)
    assert "/home" not in text
    assert "~" not in text
    assert "- Base model: base\n" in text
    assert "concept_images: pictures" in text
    immunized(mine, concept=["ant", "owl"], concept_images=[None, "/home/me/owls"])
    text = card(mine)
    assert "the concept: its maker's own pictures of 1 of 2 concepts, the base model's of the others" in text
    assert "/home" not in text


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda out: (out / "immunize.json").write_text("{"), "immunize.json is not valid JSON"),
        (lambda out: (out / "immunize.json").write_text('{"methods": []}'), "immunize.json is malformed at methods"),
        (lambda out: (out / "model" / "model_index.json").unlink(), "holds no model"),
        (lambda out: (out / "model" / "model_index.json").write_text("{"), "model_index.json is not valid JSON"),
        (lambda out: (out / "model" / "README.md").mkdir(), "is a folder"),
        (lambda out: (out / "model" / "README.md").write_bytes(b"\xff"), "can't read"),
    ],
)
def test_what_cannot_be_used_is_one_line(mine: Path, spoil: Callable[[Path], object], says: str) -> None:
    spoil(mine)
    with pytest.raises(GiftError) as caught:
        write_card(mine)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("licence", ["", "my licence", "a\nb", "-x"])
def test_a_licence_that_is_no_id_is_refused(mine: Path, licence: str) -> None:
    with pytest.raises(GiftError, match="is not a licence id"):
        write_card(mine, license=licence)


def test_a_folder_without_evidence_in_it_is_told(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(GiftError, match=r"holds neither result\.json nor records\.jsonl"):
        write_card(mine, evidence=tmp_path)
