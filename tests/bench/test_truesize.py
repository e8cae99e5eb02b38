"""The true-size benchmark on a small UNet: every contender steps, and the figures are put beside plain fine-tuning's."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from gift.bench import truesize


def in_process(name: str, command: list[str]) -> dict[str, Any]:
    """The contender's part of the command, without a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["truesize", *command[3:], "--only", name])
        printed: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: printed.append(text))
        truesize.main()
    return dict(json.loads(printed[-1]))


@pytest.mark.slow
def test_every_contender_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["truesize", "--size", "small", "--steps", "1", "--device", "cpu"])
    truesize.main(in_process)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("small: 3 M weights, batch 1, fp32; ")
    assert [line[:22].strip() for line in lines] == list(truesize.contenders(1, 1))
    assert "(1.00 x plain)" in lines[0]


def test_the_sizes_are_the_published_ones() -> None:
    import torch
    from diffusers import UNet2DConditionModel

    for size, millions in (("sd15", 859.5), ("sdxl", 2567.5)):
        with torch.device("meta"):
            unet = UNet2DConditionModel(**truesize.UNETS[size])
        assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_a_contender_that_dies_is_told() -> None:
    with pytest.raises(SystemExit, match="'plain' ended with code 2; is there enough memory"):
        truesize.apart("plain", [sys.executable, "-c", "import sys; sys.exit(2)"])
