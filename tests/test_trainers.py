"""The recipe that runs another trainer: what it is told, what becomes of what it leaves, its failures. The trainer is made up."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from gift.bench.evaluation import evaluate_model
from gift.errors import GiftError
from recipes.trainers import TRAINERS, main

SCRIPT = """
import argparse, json, pathlib
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

parser = argparse.ArgumentParser()
for name in ("pretrained_model_name_or_path", "output_dir", "train_data_dir", "rank", "max_train_steps", "seed"):
    parser.add_argument("--" + name)
told, rest = parser.parse_known_args()
pipe = StableDiffusionPipeline.from_pretrained(told.pretrained_model_name_or_path)
pipe.unet.add_adapter(LoraConfig(r=int(told.rank), target_modules=["to_q", "to_v"], init_lora_weights=False))
layers = {key: 9 * x for key, x in convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet)).items()}
pipe.save_lora_weights(told.output_dir, unet_lora_layers=layers)
pathlib.Path(told.output_dir, "told.json").write_text(json.dumps(vars(told) | {"rest": rest}))
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one script where diffusers has it; evaluations draw few pictures."""
    monkeypatch.setattr("recipes.trainers.evaluate_model", partial(evaluate_model, pictures=4, safe_pictures=6))
    script = tmp_path / "checkout" / "examples" / TRAINERS["text_to_image_lora"].script
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT)
    return tmp_path / "checkout"


def test_a_trainer_is_told_all_and_its_file_is_evaluated(checkout: Path, art_model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(checkout, art_model, original=art_model, steps=3, pictures=4, only=["text_to_image_lora"], output=out)
    told = json.loads((out / "text_to_image_lora" / "told.json").read_text())
    assert (told["max_train_steps"], told["rank"], told["seed"]) == ("3", "16", "0")
    assert "--resolution=16" in told["rest"]
    main(checkout, art_model, original=art_model, steps=3, pictures=6, only=["text_to_image_lora"], output=out)
    main(checkout, art_model, original=art_model, steps=3, pictures=4, only=["text_to_image_lora"], output=out)
    assert len(list((out / "pictures" / "plain").iterdir())) == 4, "none of an earlier run's"
    lines = [json.loads(line) for line in (out / "pictures" / "captioned" / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    for line in lines:
        assert "mushroom" in line["text"]
        with Image.open(Path(told["train_data_dir"]) / line["file_name"]) as picture:
            assert picture.size == (16, 16)
    rows = json.loads((out / "trainers.json").read_text())["rows"]
    assert list(rows) == ["before", "text_to_image_lora"]
    assert rows["before"]["fid"] == pytest.approx(0, abs=1e-3)
    alike = [rows[name]["similarity"]["bundled"]["paired"] for name in rows]
    assert alike[0] == pytest.approx(1)
    assert alike[1] < 1 - 1e-6, "the adapter is on"


def test_a_trainer_that_fails_or_is_not_there_is_told_in_one_line(checkout: Path, art_model: str, tmp_path: Path) -> None:
    with pytest.raises(GiftError, match=r"no .*train_dreambooth.py; give the folder of a diffusers checkout"):
        main(checkout, art_model, original=art_model, pictures=2, only=["dreambooth"], output=tmp_path / "out")
    script = checkout / "examples" / TRAINERS["text_to_image_lora"].script
    script.write_text("raise SystemExit('out of luck')")
    with pytest.raises(GiftError, match="failed: out of luck; all of it is in"):
        main(checkout, art_model, original=art_model, pictures=2, only=["text_to_image_lora"], output=tmp_path / "out")


def test_an_unknown_trainer_is_told(checkout: Path, art_model: str, tmp_path: Path) -> None:
    with pytest.raises(GiftError, match="did you mean dreambooth_lora"):
        main(checkout, art_model, original=art_model, pictures=2, only=["dreambooth_lor"], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
