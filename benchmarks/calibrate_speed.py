"""Calibration against the published procedure, at the real shape of a 0.6 B model on a CPU.

    python benchmarks/calibrate_speed.py --out benchmarks/results/calibrate_speed.md

The published procedure, written down here: for each sign, bracket the budget from α = 0.894 by factors of two, then
regula falsi (Illinois) in log-log; every evaluation decodes the steered model greedily, one prompt at a time, reads the
base model along the same tokens, and pools the KL divergence of all tokens into a 95th percentile. What it finds is
measured once more on other prompts, as `calibrate` does. The weights are merged once per strength, so that steering
itself costs it nothing. Fails when the required ratio is not reached or the two answers differ by more than the
tolerances allow.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import polars as pl
import torch
import tyro
from shapes import dilemmas, qwen3_0_6b, tokenizer_for
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast
from vectors import random_vector

from weightsteer import WeightVector
from weightsteer.data.evals.neutral import Text, neutral_texts
from weightsteer.measure.calibrate import calibrate
from weightsteer.measure.calibrate.prompts import halves
from weightsteer.models import render_chat
from weightsteer.training import Recipe

START = 0.8944271909999159  # √(0.05 · 16)
EVALUATIONS = 12
REQUIRED = 8.0


@dataclass(frozen=True)
class Options:
    """Compare calibration with the published procedure."""

    prompts: int = 16
    """Prompts to calibrate on; as many to audit."""
    tokens: int = 32
    budget: float = 0.5
    tolerance: float = 0.05
    threads: int = 2
    token_budget: int = 8192
    layers: int = 28
    """Fewer layers for a quick look."""
    vocabulary: int = 151_936
    size: float = 0.01
    """Of the random vector; so large that α is near 2, where it was published to be for LoRA."""
    sharpness: float = 4.0
    """Times the logits of random weights, whose KL divergence would otherwise not reach the budget at any strength."""
    out: Path | None = None
    """Write the table to this file."""


class Published:
    """One sequential evaluation after the other."""

    def __init__(
        self,
        model: PreTrainedModel,
        vector: WeightVector,
        contexts: list[list[int]],
        audit: list[list[int]],
        tokens: int,
    ) -> None:
        self.model = model
        self.weights = {name: model.get_submodule(name).weight for name in vector.names}
        self.original = {name: weight.clone() for name, weight in self.weights.items()}
        self.delta = {name: vector.delta(name) for name in vector.names}
        self.contexts = contexts
        self.audit = audit
        self.settings = GenerationConfig(
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=model.config.eos_token_id,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        self.evaluations = 0

    @torch.no_grad()
    def p95(self, alpha: float, contexts: list[list[int]]) -> float:
        """The pooled 95th percentile of KL(p₀ ‖ p_α) per token."""
        self.evaluations += len(contexts)
        self._write(alpha)
        decoded = [
            self.model.generate(torch.tensor([context]), generation_config=self.settings) for context in contexts
        ]
        self._write(0.0)
        values = []
        for context, one in zip(contexts, decoded, strict=True):
            steered = torch.cat(one.logits).float().log_softmax(-1)
            ids = one.sequences
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=len(steered) + 1).logits[0, :-1]
            assert ids.shape[1] == len(context) + len(steered)
            base = logits.float().log_softmax(-1)
            values.append((base.exp() * (base - steered)).sum(-1))
        return float(torch.cat(values).double().quantile(0.95))

    def _write(self, alpha: float) -> None:
        for name, weight in self.weights.items():
            weight.copy_(self.original[name] + alpha * self.delta[name])

    def calibrate(self, sign: int, budget: float, tolerance: float) -> float | None:
        """α, audited; None when it does not converge."""
        alpha = self._solve(sign, budget, tolerance)
        if alpha is not None:
            self.p95(alpha, self.audit)
        return alpha

    def _solve(self, sign: int, budget: float, tolerance: float) -> float | None:
        """By bracketing and regula falsi."""
        seen: dict[float, float] = {}

        def off(alpha: float) -> float:
            if alpha not in seen:
                seen[alpha] = log(max(self.p95(sign * alpha, self.contexts), 1e-12) / budget)
            return seen[alpha]

        def near(alpha: float) -> bool:
            return abs(exp(off(alpha)) - 1) <= tolerance

        low = high = START
        while off(high) < 0 and len(seen) < EVALUATIONS:
            low, high = high, 2 * high
        while off(low) > 0 and len(seen) < EVALUATIONS:
            low, high = low / 2, low
        left, right = off(low), off(high)
        for alpha in (low, high):
            if near(alpha):
                return sign * alpha
        if left > 0 or right < 0:
            return None
        side = 0
        while len(seen) < EVALUATIONS:
            share = left / (left - right)
            alpha = exp(log(low) + share * log(high / low))
            found = off(alpha)
            if near(alpha):
                return sign * alpha
            if found < 0:
                low, left = alpha, found
                right = right / 2 if side < 0 else right
                side = -1
            else:
                high, right = alpha, found
                left = left / 2 if side > 0 else left
                side = 1
        return None


def timed(name: str, work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return result, seconds


def setting(options: Options) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, list[Text], list[Text]]:
    model = qwen3_0_6b(options.layers, options.vocabulary)
    model.model.norm.weight.mul_(options.sharpness)
    tokenizer = tokenizer_for(dilemmas(model))
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer, *halves(neutral_texts(model), options.prompts)


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    model, tokenizer, prompts, audit = setting(options)
    recipe = Recipe.load("fork")
    vector = random_vector(model, "lora", recipe, options.size)
    contexts, others = ([render_chat(tokenizer, one.messages) for one in some] for some in (prompts, audit))

    def ours(text: Any) -> pl.DataFrame:
        return calibrate(
            model,
            tokenizer,
            vector,
            text=text,
            budget=options.budget,
            tokens=options.tokens,
            tolerance=options.tolerance,
            prompts=prompts,
            audit_prompts=audit,
            token_budget=options.token_budget,
            shown=False,
        )

    base, base_seconds = timed("base text", lambda: ours("base"))
    steered, steered_seconds = timed("steered text", lambda: ours("steered"))
    plain = Published(model, vector, contexts, others, options.tokens)

    def published() -> list[float | None]:
        return [plain.calibrate(sign, options.budget, options.tolerance) for sign in (-1, 1)]

    solved, plain_seconds = timed("published", published)
    evaluations = plain.evaluations

    # the same answer: what the published procedure itself measures at our strength
    stars = steered["alpha_star"].to_list()
    checked = [None if star is None else plain.p95(star, contexts) for star in stars]

    def measured(rows: pl.DataFrame) -> int:
        return int(rows["evaluations"].sum() + rows["audit_prompts"].sum())

    def shown(values: list[float | None]) -> str:
        return " / ".join("none" if value is None else f"{value:.3f}" for value in values)

    rows = "\n".join(
        f"| {name} | {seconds:.1f} | {plain_seconds / seconds:.1f} | {measurements} | {shown(alphas)} |"
        for name, seconds, measurements, alphas in (
            ("published", plain_seconds, evaluations, solved),
            ("calibrate, steered text", steered_seconds, measured(steered), stars),
            ("calibrate, base text", base_seconds, measured(base), base["alpha_star"].to_list()),
        )
    )
    report = f"""\
# Calibration against the published procedure

`python benchmarks/calibrate_speed.py {" ".join(sys.argv[1:])}`

Random weights in the shape of Qwen3-0.6B ({options.layers} layers, vocabulary {options.vocabulary}), fp32,
{options.threads} threads; {len(prompts)} prompts of {sum(map(len, contexts)) / len(contexts):.0f} tokens,
{options.tokens} tokens of continuation; p95 of the KL divergence at {options.budget} nat ± {options.tolerance:.0%};
both signs; a random LoRA vector of the `fork` recipe. Logits are {options.sharpness:g} times those of the
random weights. All times include the audit on {len(audit)} other prompts, those of `calibrate` also the noise floor.

| | seconds | times faster | prompts × strengths | α (− / +) |
|---|---|---|---|---|
{rows}

The published measurement at the strengths of "steered text": {shown(checked)} nat. Required: {REQUIRED:g} times.
"""
    print(report)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    if None in stars or any(abs(kl / options.budget - 1) > options.tolerance + 0.01 for kl in checked if kl):
        sys.exit("the two results differ")
    if plain_seconds / steered_seconds < REQUIRED:
        sys.exit("not reached: times faster")


if __name__ == "__main__":
    main(tyro.cli(Options))
