"""`gift attack --search`: what it writes and prints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gift.files import write_json, write_text

if TYPE_CHECKING:
    from gift.cli.configs import AttackConfig
    from gift.models import DenoisingModel
    from gift.training.progress import Reporter


def search_attack(
    opened: DenoisingModel, base: DenoisingModel | None, chosen: AttackConfig, folder: Path, reporter: Reporter
) -> None:
    """Searches for the worst attack; writes `search.json`, and `worst.yaml`, with which `gift attack` repeats the worst one.

    With a base, attacks that lean on one are among those tried.
    """
    from gift.attacks import ATTACKS
    from gift.bench.space import SearchConfig
    from gift.bench.worst import find_worst
    from gift.settings import make_attack

    first = make_attack(chosen.attack, {"steps": chosen.steps, **chosen.options})
    known = {"model", "concept", "attack", "steps", "options", "search", "kohya", "saving", "tracker", "base", *chosen.OF_A_SEARCH}
    kept = chosen.model_dump(exclude={*known, *chosen.OPENING})
    kinds, saving = tuple(ATTACKS) if base else (), chosen.saving
    config = SearchConfig(trials=chosen.search, kinds=kinds, **{name: getattr(chosen, name) for name in chosen.OF_A_SEARCH})
    found = find_worst(opened, chosen.concept, first, config, folder, base=base, **kept, reporter=reporter, saving=saving)
    write_json(folder / "search.json", {"config": chosen.model_dump(mode="json"), **found})
    worst = found["worst"]
    options = {key: value for key, value in worst["arguments"].items() if key != "steps"}
    how = make_attack(worst["attack"], options)
    again = {**chosen.model_dump(mode="json"), "attack": worst["attack"], "options": options, "search": 0}
    again |= dict.fromkeys(chosen.OF_A_SEARCH) | ({} if chosen.concept_images else {"pictures": worst["pictures"]})
    again |= {} if how.needs_base else {"base": None}
    again |= {} if how.needs_harmless else {"harmless_images": None}
    head = "# the worst attack that was found: gift attack --config worst.yaml\n"
    write_text(folder / "worst.yaml", head + yaml.safe_dump(again, sort_keys=False, allow_unicode=True))
    shutil.rmtree(folder / "work", ignore_errors=True)
    print(f"concept score before: {found['score_before']:.3f}")
    for title, row in (("default", found["default"]), ("worst", worst)):
        print(f"{title:<8}{told(row)}")
    if chosen.pictures_tried:
        print(f"  pictures: {worst['pictures']}")
    for key, value in worst["arguments"].items():
        start = found["default"]["arguments"].get(key)
        if worst["attack"] != found["default"]["attack"] or value != start:
            print(f"  {key}: {value}")
    print(
        f"highest last score of any attack: {found['best_last']:.3f}\n"
        f"the search took {found['steps']} attack steps in {len(found['trials'])} trials, {found['seconds']:.0f} s, at most "
        f"{found['peak_mb']:.0f} MB"
    )
    reporter.say(f"trials in {folder / 'search.json'}; 'gift attack --config {folder / 'worst.yaml'}' repeats the worst")


def told(row: dict[str, Any]) -> str:
    """One trial in words."""
    if row["state"] == "broken":
        return f"{row['attack']}: broke down ({row['error']})"
    return (
        f"{row['attack']}: recovery area {row['area']:.3f}, last score {row['last']:.3f} after {row['steps']} steps, "
        f"{row['seconds']:.0f} s, {row['peak_mb']:.0f} MB"
        + ("" if row["safe_left"] is None else f", {row['safe_left']:.0%} of the safe accuracy left")
    )
