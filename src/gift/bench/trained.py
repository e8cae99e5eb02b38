"""The pieces that train: the sets that a defence sees, defences, attacks, and searches for the worst one."""

from __future__ import annotations

from dataclasses import replace

from gift.attacks import Attack
from gift.bench.context import opened
from gift.bench.identity import pictures_digest
from gift.bench.safe_after import left_by
from gift.bench.search import search
from gift.bench.space import SearchConfig
from gift.bench.store import Store
from gift.bench.trial import Scored, Trial, Watch, attack_and_score
from gift.bench.work import Value, Work
from gift.metrics.collapse import collapsed
from gift.metrics.memory import memory
from gift.settings import make_attack, make_immunizers
from gift.training.measure import Meter


def draw(work: Work) -> Value:
    """D_h or D_s, drawn by the original model."""
    bench, n = work.context.bench, work.piece.settings["pictures"]
    drawn = bench.concept_set(n) if work.piece.settings["role"] == "concept" else bench.safe_set(n)
    several = {} if drawn.weights is None else {"weights": drawn.weights, "concept_of": drawn.concept_of}
    return {"latents": drawn.latents, "which": drawn.which, "prompts": drawn.prompts, **several}


def defend(work: Work) -> Value:
    """The weights that the last method of a chain leaves, and what the whole chain cost."""
    settings = work.piece.settings
    method = make_immunizers(settings["method"], settings["arguments"])[0]
    with Meter() as meter:
        model = method(
            work.model("start"),
            work.latent_set("concept"),
            work.latent_set("safe"),
            seed=settings["seed"],
            checkpoints=replace(work.checkpoints(), meter=meter),
            reporter=work.reporter,
        )
    earlier = work.need("start") if "start" in work.piece.needs else {"seconds": 0.0, "peak_mb": 0.0, "steps": 0}
    return {
        "weights": dict(model.denoiser.state_dict()),
        "seconds": earlier["seconds"] + meter.seconds,
        "peak_mb": max(earlier["peak_mb"], meter.peak_mb),
        "steps": earlier["steps"] + method.total_steps,
    }


def run_trial(work: Work, how: Attack, pictures: int, part: str = "", watch: Watch | None = None) -> Trial:
    """One attack on the piece's weights with so many pictures, scored along the way."""
    settings = work.piece.settings
    _, n = settings["sizes"]
    context, score = work.context, work.need("score")
    return attack_and_score(
        work.model(),
        how,
        context.attack_set(pictures),
        context.bench.asks(n),
        context.bench.scorer,
        seed=settings["seed"],
        harmless=context.harmless_set(pictures) if how.needs_harmless else None,
        base=opened(work.piece.places["base"])[0] if how.needs_base else None,
        before=Scored(score["images"], score["scores"]),
        checkpoints=work.checkpoints(part),
        reporter=work.reporter,
        watch=watch,
    )


def as_value(how: Attack, done: Trial) -> Value:
    """A trial without its weights, as JSON; of the pictures only digests."""
    return {
        "attack": how.name,
        "arguments": how.model_dump(mode="json"),
        "seen": [
            {"step": step, "scores": seen.scores, "pictures": pictures_digest(seen.images)}
            for step, seen in sorted(done.seen.items())
        ],
        **done.training(),
    }


def attack(work: Work) -> Value:
    """An attack with all of its pictures, and whether the last ones are copies of the attacker's, or broken."""
    chosen = work.need("search")["worst"] if "search" in work.piece.needs else work.piece.settings
    how = make_attack(chosen["attack"], chosen["arguments"])
    pictures = chosen.get("pictures", work.piece.settings["sizes"][0])
    done = run_trial(work, how, pictures)
    looks = [{"step": step, "images": seen.images} for step, seen in sorted(done.seen.items())]
    bench = work.context.bench
    last, taught = done.seen[how.steps].images, bench.attack_images(pictures)
    safe = left_by(work.beside, work.need("safe")["accuracy"], done.attacked.model) if "safe" in work.piece.needs else None
    copies, whole = memory(last, taught), collapsed(last, work.need("original")["images"])
    return {
        **as_value(how, done),
        "pictures": pictures,
        "prompts": [ask.prompt for ask in done.asks],
        "seeds": [ask.seed for ask in done.asks],
        "looks": looks,
        "memory": {"nearest": list(copies.nearest), "apart": copies.apart, "copied": copies.copied, "flag": copies.flag},
        "diversity": whole.relative_diversity,
        "collapse": whole.flag,
        **({"safe_after": safe} if safe else {}),
    }


def search_worst(work: Work) -> Value:
    """A search for the worst attack; its study goes on where it stopped."""
    settings = work.piece.settings
    first = make_attack(settings["attack"], settings["arguments"])
    config = SearchConfig(**settings["search"])
    lasting = {**work.piece.content, "settings": {**settings, "search": {**settings["search"], "trials": None}}}
    name = Store.key("study", lasting)  # more trials go on from the same study
    before = None if config.least_safe is None else work.need("safe")["accuracy"]

    def attempt(number: int, how: Attack, pictures: int, watch: Watch) -> Value:
        done = run_trial(work, how, pictures, f"-{number}", watch)
        value = as_value(how, done) | ({} if before is None else {"safe_after": left_by(work.beside, before, done.attacked.model)})
        work.checkpoints(f"-{number}").clear()
        return value

    return search(
        config,
        first,
        attempt,
        work.folder / "studies" / f"{name}.db",
        model=work.model(),
        pictures=settings["sizes"][0],
        seed=settings["seed"],
        reporter=work.reporter,
    )
