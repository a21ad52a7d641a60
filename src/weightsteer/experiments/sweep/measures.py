"""The stages that measure: a sweep over rows, what the same strengths cost, and generated texts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from weightsteer.experiments.stages.items import load_items
from weightsteer.experiments.stages.vector import load_vector
from weightsteer.experiments.sweep.entries import Entries, Entry, by_alphas, one_draw
from weightsteer.files import read_piece, write_piece
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.runtime.store import SCRATCH

BLOCK = 1024
"""Rows of an evaluation that are measured before they are kept."""

if TYPE_CHECKING:
    import polars

    from weightsteer.data.evals.files import FileRows


@dataclass(frozen=True)
class Sweep(Stage):
    """``rows.parquet``: the entries over the rows of one evaluation, each at its strengths; one draw of each control.

    All draws are compared where the strengths are: at equal side effects.
    """

    name: ClassVar[str] = "sweep"

    model: ModelSpec
    entries: Entries
    items: Stage
    evaluation: str

    def build(self, work: Path, runner: Runner) -> None:
        rows = load_items(runner.make(self.items), self.evaluation)
        entries = one_draw(self.entries.load(runner))
        scored(self.model, entries, rows, runner, work / SCRATCH).write_parquet(work / "rows.parquet")


@dataclass(frozen=True)
class RandomNull(Stage):
    """``null.parquet``: what random directions with the norms of each vector do to one evaluation.

    One gradient serves all vectors. Where the weights have no gradient of their own, or the rows ask for a thought
    first, draws are swept at α = ±1 in its place. The entries need no strengths: the null is linear in α.
    """

    name: ClassVar[str] = "null"

    model: ModelSpec
    entries: tuple[Entries, ...]
    items: Stage
    evaluation: str

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.activation import ActivationVector
        from weightsteer.controls import draws
        from weightsteer.controls.random_null import random_null
        from weightsteer.inference.gradients import NoGradient
        from weightsteer.stats import summarize
        from weightsteer.stats.null import linear, null_of_draws
        from weightsteer.vector import WeightVector

        rows = load_items(runner.make(self.items), self.evaluation)
        entries = [entry for each in self.entries for entry in each.load(runner)]
        model, tokenizer = runner.model(self.model)
        vectors = [entry.intervention for entry in entries]
        try:
            asked = [vector for vector in vectors if isinstance(vector, WeightVector | ActivationVector)]
            found = random_null(model, tokenizer, asked, rows)
        except NoGradient:
            made = [
                Entry(draw, (-1.0, 1.0))
                for entry in entries
                if isinstance(entry.intervention, WeightVector) and entry.intervention.method == "weight"
                for draw in draws("random", entry.intervention)
            ]
            swept = scored(self.model, made, rows, runner, work / SCRATCH)
            found = linear(null_of_draws(summarize(swept, by_seed=True, resamples=1)))
        found.write_parquet(work / "null.parquet")


@dataclass(frozen=True)
class Damage(Stage):
    """``damage.parquet``: likelihood of neutral text under every entry, and its distance from the base model."""

    name: ClassVar[str] = "damage"

    model: ModelSpec
    entries: Entries

    def build(self, work: Path, runner: Runner) -> None:
        import polars

        from weightsteer.data.evals.neutral import neutral_texts
        from weightsteer.measure.damage import damage

        model, tokenizer = runner.model(self.model)
        texts = neutral_texts(model)
        frames = [
            damage(model, tokenizer, [entry.intervention for entry in together], texts, together[0].alphas)
            for together in by_alphas(one_draw(self.entries.load(runner)))
        ]
        polars.concat(frames).write_parquet(work / "damage.parquet")


@dataclass(frozen=True)
class Capability(Stage):
    """``capability.parquet``: the rows of neutral tasks under every entry, each at its strengths."""

    name: ClassVar[str] = "capability"

    model: ModelSpec
    entries: Entries

    def build(self, work: Path, runner: Runner) -> None:
        import polars

        from weightsteer.data.evals.capability import tasks
        from weightsteer.measure import sweep

        model, tokenizer = runner.model(self.model)
        entries = one_draw(self.entries.load(runner))
        frames = [
            sweep(model, tokenizer, [entry.intervention for entry in together], task, together[0].alphas)
            for task in tasks()
            for together in by_alphas(entries)
        ]
        polars.concat(frames).write_parquet(work / "capability.parquet")


@dataclass(frozen=True)
class Samples(Stage):
    """``samples.json``: likeliest answers to held-out questions of the behaviour at every strength.

    Attributes:
        tokens: the longest answer; None: what the model generates by default.
        seed: of the vector, for the record.
    """

    name: ClassVar[str] = "samples"

    model: ModelSpec
    vector: Stage
    questions: tuple[str, ...]
    alphas: tuple[float, ...]
    tokens: int | None
    seed: int

    def build(self, work: Path, runner: Runner) -> None:
        from dataclasses import replace

        import numpy as np

        from weightsteer.inference.sampling import default_sampling, sample, stop_ids
        from weightsteer.models import render_chat
        from weightsteer.progress import progress
        from weightsteer.steering import steer

        vector = load_vector(runner.make(self.vector), runner, self.model)
        model, tokenizer = runner.model(self.model)
        greedy = replace(default_sampling(model), temperature=0.0)
        greedy = replace(greedy, max_new_tokens=self.tokens or greedy.max_new_tokens)
        prompts = [render_chat(tokenizer, [{"role": "user", "content": text}]) for text in self.questions]
        unused = np.zeros((len(prompts), greedy.max_new_tokens))
        lines = []
        with progress("samples", len(self.alphas)) as advance:
            for alpha in self.alphas if self.questions else ():
                with steer(model, vector, alpha):
                    owners = range(len(prompts))
                    drawn = sample(model, prompts, owners, unused, greedy, stop_ids(model, tokenizer))
                for question, ids in zip(self.questions, drawn, strict=True):
                    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
                    lines.append({"prompt": question, "alpha": alpha, "seed": self.seed, "text": text})
                advance(1)
        (work / "samples.json").write_text(json.dumps(lines, indent=1, ensure_ascii=False), encoding="utf-8")


def scored(
    spec: ModelSpec, entries: Sequence[Entry], rows: "FileRows", runner: Runner, scratch: Path
) -> "polars.DataFrame":
    """The rows of one evaluation under every entry; rows that ask for a thought are guided.

    They are measured in blocks, which are the same whether or not the measurement was interrupted: it goes on after
    the last block that is in the folder ``scratch``.
    """
    import polars

    from weightsteer.data.evals.files import Rows
    from weightsteer.measure import sweep
    from weightsteer.measure.guided import guided
    from weightsteer.measure.rows import SCHEMA

    model, tokenizer = runner.model(spec)
    items = rows.items(model)
    thinks = any(item.thinking_tokens for item in items)
    blocks = [Rows(rows.name, items[start : start + BLOCK]) for start in range(0, len(items), BLOCK)]
    measurements: list[Callable[[], polars.DataFrame]] = []
    for together in by_alphas(entries):
        chosen, alphas = [entry.intervention for entry in together], together[0].alphas
        if thinks:  # what a thought draws at random goes on from row to row: one block for each intervention
            measurements += [partial(guided, model, tokenizer, items, each, alphas, name=rows.name) for each in chosen]
        else:
            measurements += [partial(sweep, model, tokenizer, chosen, block, alphas) for block in blocks]
    frames = []
    for number, measured in enumerate(measurements):
        place = scratch / f"block-{number:05d}"
        if (content := read_piece(place)) is None:
            written = BytesIO()
            measured().select(list(SCHEMA)).write_parquet(written)
            write_piece(place, content := written.getvalue())
        frames.append(polars.read_parquet(BytesIO(content)))
    return polars.concat(frames)
