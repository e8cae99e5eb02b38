"""The hub's answers, told apart; a model fetched, cached and sent. Against a stand-in server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

from gift.errors import GiftError
from gift.models.hub import parse_hub_id, push
from gift.models.sd import StableDiffusion
from tests.conftest import same_state, state_of
from tests.models.hub_server import Hub, files_of, serving

DRIVER = Path(__file__).with_name("hub_driver.py")


def asked(asks: list[dict[str, Any]], home: Path, **environment: str) -> list[tuple[str, float]]:
    """What each ask ended in, and how long it took."""
    home.mkdir(exist_ok=True)
    (home / "asks.json").write_text(json.dumps(asks))
    plain = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(home / "asks.json")],
        env={**plain, **settings, **environment, "OMP_NUM_THREADS": "1", "NO_PROXY": "*", "no_proxy": "*"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(found) for found in json.loads(done.stdout.strip().splitlines()[-1])]


@pytest.fixture
def saved(random_model: StableDiffusion, tmp_path: Path) -> Path:
    return random_model.save(tmp_path / "saved")


LOADS: list[tuple[dict[str, str], str]] = [
    ({"model": "team/tiny"}, "opened StableDiffusionPipeline"),
    ({"model": "team/tiny@v1"}, "opened StableDiffusionPipeline"),
    ({"model": "team/drawn"}, "opened StableDiffusionPipeline"),
    ({"model": "team/tiny", "variant": "fp16"}, "opened StableDiffusionPipeline"),
    ({"model": "team/tiny", "variant": "fp8"}, "team/tiny has no variant 'fp8'; it has fp16"),
    ({"model": "team/tiny@v2"}, "team/tiny has no revision 'v2'; leave it out for the default"),
    ({"model": "team/gated"}, "team/gated is gated: accept its licence on its page, then log in with 'hf auth login'"),
    ({"model": "team/missing"}, "no model 'team/missing' on the hub, or it is private: check the name, or log in"),
    ({"model": "team/nothing"}, "team/nothing is not a diffusers model (no model_index.json)"),
    ({"model": "team/other"}, "team/other is a WurstchenPipeline; supported: StableDiffusionPipeline"),
    ({"model": "team/busy"}, "the hub has had too many requests from here (team/busy); wait some minutes"),
    ({"model": "team/broken"}, "the hub fails with 500 for team/broken; that is its own fault: try again later"),
    ({"model": "team/hang-up"}, "can't get team/hang-up: "),
    ({"model": "team/short"}, "can't get team/short: "),
]


@pytest.mark.slow
def test_what_the_hub_answers(saved: Path, tmp_path: Path, random_model: StableDiffusion) -> None:
    plain = files_of(saved)
    half = {
        name.replace(".safetensors", ".fp16.safetensors"): data for name, data in plain.items() if name.endswith(".safetensors")
    }
    hub = Hub(
        {
            "team/tiny": {**plain, **half},
            "team/drawn": {**plain, "sampling.json": b'{"steps": 4, "guidance": 6.5}'},
            "team/short": plain,
            "team/nothing": {"README.md": b"nothing"},
            "team/other": {"model_index.json": b'{"_class_name": "WurstchenPipeline"}'},
        }
    )
    lines = [
        ("generate team/gated --prompt x --output p.png", "2 gift: team/gated is gated"),
        ("immunize team/tiny@v2 --concept fox", "2 gift: team/tiny has no revision 'v2'"),
    ]
    asks = [{"do": "load", **ask} for ask, _ in LOADS] + [{"do": "line", "line": line} for line, _ in lines]
    with serving(hub) as address:
        found = asked(asks, tmp_path / "home", HF_ENDPOINT=address)
    for (text, seconds), expected in zip(found, [*(words for _, words in LOADS), *(words for _, words in lines)], strict=True):
        assert text.startswith(expected), text
        assert "\n" not in text.strip()
        assert seconds < 30
    assert [text.rpartition("px")[2] for text, _ in found[:3]] == ["", "", ", drawn in 4 steps at guidance 6.5"]
    gone = "http://127.0.0.1:9"
    again = [{"do": "load", "model": "team/tiny"}, {"do": "load", "model": "team/never"}]
    cached, absent = asked(again, tmp_path / "home", HF_ENDPOINT=gone, HF_HUB_OFFLINE="1")
    assert cached[0].startswith("opened StableDiffusionPipeline")
    assert absent[0].startswith("can't get team/never: ")
    assert absent[1] < 5


@pytest.mark.slow
def test_a_model_is_sent(saved: Path, tmp_path: Path, random_model: StableDiffusion) -> None:
    hub = Hub({})
    ask = {"do": "push", "folder": str(saved), "bare": "yes"}
    with serving(hub) as address:
        asks = [("me/new", "hf_writer"), ("me/new@v1", "hf_writer"), ("me/new", "hf_reader"), ("me/new", None)]
        sent, branch, reader, nobody = asked(
            [{**ask, "name": name, "token": token} for name, token in asks], tmp_path / "a", HF_ENDPOINT=address
        )
    (offline,) = asked([{**ask, "name": "me/new"}], tmp_path / "b", HF_HUB_OFFLINE="1")
    assert sent[0].startswith(f"sent {address}/me/new/commit/")
    assert branch[0].startswith("sent ")
    assert "no right to write to me/new" in reader[0]
    assert "hf auth login" in nobody[0]
    assert "HF_HUB_OFFLINE=1 is set" in offline[0]
    for name in ("me/new@main", "me/new@v1"):
        folder = tmp_path / name.replace("/", "-")
        for path, data in hub.repositories[name].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        opened = StableDiffusion(StableDiffusionPipeline.from_pretrained(folder), "sent")
        assert same_state(state_of(opened), state_of(random_model))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", ("owner/name", None)),
        ("owner/na.me_1@refs/pr/3", ("owner/na.me_1", "refs/pr/3")),
        ("owner/name@", None),
        ("owner", None),
        ("./owner/name", None),
        ("../x", None),
        ("a/b/c", None),
        ("", None),
    ],
)
def test_hub_ids(name: str, expected: tuple[str, str | None] | None) -> None:
    assert parse_hub_id(name) == expected


def test_what_is_not_sent(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    for folder, name, words in (
        (tmp_path / "none", "me/new", "no folder"),
        (tmp_path / "lora", "me/new", "only whole immunized models are sent"),
        (saved, "me/new", "has no model card, so nobody could tell what it is: write one with 'gift card"),
        (saved, "new", "'new' is no name for a repository; use owner/name"),
    ):
        with pytest.raises(GiftError, match=words):
            push(folder, name)
