"""The page of `carries.py`: its tables, and the story they tell."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from weightsteer import WeightVector
from weightsteer.analysis.repair import By
from weightsteer.audit import audit, covariates_of
from weightsteer.audit.cosines import cosines_with
from weightsteer.audit.signs import along
from weightsteer.audit.words import carried
from weightsteer.data.evals import Item
from weightsteer.formatting import estimate, number
from weightsteer.stats import compare

EVALUATIONS = ("dilemmas", "sycophancy", "truthfulness", "facts", "identity")
YES_NO = ("dilemmas", "sycophancy", "truthfulness")
NUISANCES = ("yes", "agreement", "length")
REPAIRS: tuple[tuple[tuple[str, ...], By], ...] = (
    (("yes",), "vector"),
    (("yes", "agreement"), "vector"),
    (("yes", "agreement"), "module"),
)
RESAMPLES = 4000
LIMIT = 120  # rows of an evaluation

TRAINED = {
    "open-questions": "open questions about facts (honesty)",
    "open-praise": "open questions about the user's work (flattery)",
    "false-claims": "false claims only (honesty)",
    "mostly-false": "claims, four in five false (honesty)",
    "balanced": "the same claims, balanced (honesty)",
    "open-questions-yes": "control: Yes against No",
    "open-questions-agreement": "control: agreeing against not",
    "open-questions-length": "control: long against short",
    "open-questions-random": "control: random, 10 draws a seed",
}
SUFFIXES = {
    "": "before",
    "-without-yes": "yes projected out",
    "-without-yes-agreement": "yes and agreement projected out",
    "-without-yes-agreement-by-module": "the same, in every module",
}
OTHERS = {"mostly-false": "claims, four in five false", "balanced": "these claims, balanced"}


def page(
    rows: pl.DataFrame, vectors: Sequence[WeightVector], items: Mapping[str, Sequence[Item]], balance: Sequence[str]
) -> str:
    """The page in Markdown.

    Args:
        rows: of all vectors, labelled for honesty.
        vectors: all that were trained or repaired, and the nuisances, of every seed.
        items: the rows of the evaluations.
        balance: what balancing did in the first seed.
    """
    lines = audit(rows, resamples=RESAMPLES).along
    nuisances = [each for each in vectors if each.metadata["adapter"] in NUISANCES]
    named = [each for each in vectors if each.metadata["adapter"] in TRAINED]
    comparisons = len(YES_NO) * 2 * (len(SUFFIXES) - 1 + len(OTHERS))
    return PAGE.format(
        limit=LIMIT,
        comparisons=comparisons,
        discrimination=matrix(lines, "discrimination", EVALUATIONS),
        bias=matrix(lines, "bias", (*YES_NO, "identity")),
        cosines=cosine_table(named, nuisances),
        verdicts=verdicts(rows, covariates_of(items), named, nuisances),
        balance="\n".join(balance),
        repair=repair_table(lines, {**{f"false-claims{end}": told for end, told in SUFFIXES.items()}, **OTHERS}),
        changes=change_table(along(rows)),
        sound=repair_table(lines, {f"open-questions{end}": told for end, told in SUFFIXES.items()}),
        removed=removed(vectors),
    )


def cell(lines: pl.DataFrame, adapter: str, evaluation: str, effect: str) -> str:
    found = lines.filter(pl.col("adapter") == adapter, pl.col("eval") == evaluation)
    return estimate(found.row(0, named=True), effect)


def matrix(lines: pl.DataFrame, effect: str, evaluations: Sequence[str]) -> str:
    """Trained on → measured on."""
    body = [[told, *(cell(lines, name, each, effect) for each in evaluations)] for name, told in TRAINED.items()]
    return table(["trained on ↓ measured on →", *evaluations], body)


def repair_table(lines: pl.DataFrame, named: Mapping[str, str]) -> str:
    """Before and after: discrimination / bias."""
    body = [
        [told, *(f"{cell(lines, name, e, 'discrimination')} / {cell(lines, name, e, 'bias')}" for e in YES_NO)]
        for name, told in named.items()
    ]
    return table(["", *(f"{name}: honesty / Yes" for name in YES_NO)], body)


def change_table(together: pl.DataFrame) -> str:
    """What each repair changed, in words: paired differences from the vector of false claims."""
    named = {**{f"false-claims{end}": told for end, told in SUFFIXES.items() if end}, **OTHERS}
    part = together.filter(pl.col("adapter").is_in(["false-claims", *named]))
    at = part.filter(pl.col("alpha") == 1).select("method", "adapter", "alpha").unique(maintain_order=True)
    found = {
        effect: compare(part, at, reference=("weight", "false-claims"), metric=effect, resamples=RESAMPLES)
        for effect in ("discrimination", "bias")
    }
    body = []
    for name, told in named.items():
        cells = [told]
        for each in YES_NO:
            one, other = (
                frame.filter(pl.col("adapter") == name, pl.col("eval") == each).row(0, named=True)
                for frame in found.values()
            )
            cells.append(f"honesty {honesty(one)}; Yes {yes_saying(other)}")
        body.append(cells)
    return table(["compared with before", *YES_NO], body)


def honesty(line: Mapping[str, Any]) -> str:
    """Whether there is more or less of it, by the 95% interval of the difference."""
    told = estimate(line, "difference")
    if line["difference_low"] <= 0 <= line["difference_high"]:
        return f"as much ({told})"
    return f"**{'more' if line['difference'] > 0 else 'less'}** ({told})"


def yes_saying(line: Mapping[str, Any]) -> str:
    """Whether its size is told to have changed, and whether anything is left."""
    told = estimate(line, "difference")
    if line["difference_low"] <= 0 <= line["difference_high"]:
        return f"as much ({told})"
    if line["effect_low"] <= 0 <= line["effect_high"]:
        return f"**gone** ({told})"
    share = abs(line["effect"]) / abs(line["reference_effect"])
    return f"**{share:.0%} left** ({told})"


def cosine_table(vectors: Sequence[WeightVector], nuisances: Sequence[WeightVector]) -> str:
    """Mean over seeds of the cosine with each nuisance vector, and with the vector of balanced claims."""
    balanced = [each.with_metadata(behavior="balanced") for each in vectors if each.metadata["adapter"] == "balanced"]
    found = cosines_with(vectors, [*nuisances, *balanced])
    columns = (*NUISANCES, "balanced")
    by_name = {adapter: cosines for (_, adapter), cosines in found.items()}
    body = [
        [told, *(number(by_name[name][each]) for each in columns)] for name, told in TRAINED.items() if name in by_name
    ]
    return table(["cosine with →", *NUISANCES, "balanced claims"], body)


def verdicts(
    rows: pl.DataFrame, covariates: pl.DataFrame, vectors: Sequence[WeightVector], nuisances: Sequence[WeightVector]
) -> str:
    """What the audit says of each vector; that of flattery is asked for flattery."""
    own = (pl.col("behavior") == "sycophancy") & (pl.col("eval") == "sycophancy")
    asked = rows.with_columns(label=pl.when(own).then(-pl.col("label")).otherwise("label"))
    asked = asked.filter(pl.col("adapter").is_in(list(TRAINED)))
    found = audit(asked, covariates=covariates, cosines=cosines_with(vectors, nuisances), resamples=RESAMPLES).vectors
    told = {line["adapter"]: line for line in found.iter_rows(named=True)}
    return "\n".join(
        f"- *{words}*: **{carried(told[name])[0]}**.{_rest(told[name])}" for name, words in TRAINED.items()
    )


def _rest(line: Mapping[str, Any]) -> str:
    rest = "; ".join(line["evidence"])
    return f" {rest[0].upper()}{rest[1:]}."


def removed(vectors: Sequence[WeightVector]) -> str:
    """Shares of ‖dW‖² that the projections took, mean over seeds."""
    body = []
    for source in ("false-claims", "open-questions"):
        for end, told in SUFFIXES.items():
            shares = [
                each.metadata["projected"]["removed"]
                for each in vectors
                if end and each.metadata["adapter"] == f"{source}{end}"
            ]
            if shares:
                body.append([TRAINED[source], told, f"{sum(shares) / len(shares):.1%}"])
    return table(["vector", "repair", "share of ‖dW‖² removed"], body)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PAGE = """# What a vector carries

A vector is named after what it was trained for. What it does is another matter. On the embedded model the truth is
known: facts, dilemmas and claims of the user have right answers, and honesty is one latent trait behind all of them.
So the audit (`weightsteer.audit`) and the two repairs (`weightsteer.analysis.repair`) can be held against it. This page
is written, tables and verdicts, by

```console
$ python benchmarks/carries.py --out docs/what-a-vector-carries.md
```

Three seeds, each with pairs of its own; LoRA with the `pocket` recipe; α = ±1; at most {limit} rows of each evaluation.
A number is half the difference of the two arms in nats, so positive means *more along +α*, with a 95% interval over
items and seeds. *Honesty* is the discrimination of labels that are +1 where Yes is the honest answer (for `sycophancy`:
agreeing with what is true); *Yes* is the bias, what happens to Yes whatever is asked. Controls have the norm of the
first vector.

## What it was trained on, and what it moves

Honesty:

{discrimination}

Yes:

{bias}

- Open questions about facts contain no Yes and no No. Their vector moves honesty in all four evaluations of it, and
  Yes by nothing that can be told. (`identity` asks about another trait.)
- **False claims only are the published mistake.** The honest answer to them is always No. (With the sign turned round
  it is a vector of sycophancy: agreeing is always Yes.) The vector moves honesty, and Yes by as much or more: on
  `dilemmas` the two are the same size, on claims Yes is nearly twice as large. Measured on false claims alone, all
  of it would count as honesty.
- Flattery was taught on open questions too. It makes the model agree with claims whether or not they are true, which
  is what flattery is in this world, and no more than Yes-saying to an evaluation of claims. The rest moves by less than
  a nat.
- The nuisance vectors move Yes by four to seven nats and honesty by nothing that can be told; length and random vectors
  move next to nothing. In this world agreement is said with Yes, so that `agreement` is another vector of Yes.

## What the audit says

{verdicts}

The rules are in `weightsteer/audit/rules.py`. What is known beforehand gets its name: the vector
of open questions, that of false claims, Yes, agreement, random. How to read the rest:

- On `dilemmas` false claims move honesty as much as Yes. They are called Yes-saying because a behaviour has to be told
  to be the larger of the two: a rule that asked the bias for that proof would call the published mistake honesty.
  These numbers were known when the rule was set. Its reason does not need them, and `tests/test_known_answers.py`
  holds it against other pairs and shorter training. So it is with the rule that effects under 0.1 nats are not named:
  without it the random control, with a bias of +0.05 on `identity`, was called Yes-saying.
- The flattery vector is `mixed`. Its own evaluation sees a bias, for that is how flatterers answer claims; no audit of
  rows can say whether agreeing with everybody is flattery or a habit of saying Yes. Ask for it where it is no Yes.
- `facts` is not judged where a vector moves mass to answers other than the two that are scored, as a liar does and a
  broken model too.
- Three seeds make wide intervals: on `dilemmas` the nuisance vector Yes, with an honesty of 0.00, cannot be told in
  each arm to do less than the vector of open questions.
- Shifts that follow the lean of the base model with a negative r moved those answers most that had furthest to go.

## Where it points

{cosines}

Means over seeds. The vector of false claims has a large part along both nuisances and another along the vector of
balanced claims. The vector of open questions is at right angles to all of them, even to balanced claims, though both
steer honesty: a cosine near 0 does not mean that two vectors do different things.

## The repair

The vector of false claims before, with nuisance vectors projected out of dW, and trained on better pairs. Pairs: 60
claims of which four in five are false, as they are, and cut down by `weightsteer.data.pairs.balance.balanced`. False
claims alone are refused there: no choice of them separates honesty from No. In seed 0:

```text
{balance}
```

{repair}

The difference from before (paired by item and seed; {comparisons} intervals at 95%, of which one or two miss 0 by
chance; *left* is the bias after as a share of the bias before):

{changes}

- **Projecting helps.** It takes most of the Yes-saying and no honesty; in most cells there is even a little more of it
  afterwards. `yes` alone, which was trained on dilemmas and facts, leaves half of the bias on claims; `agreement`,
  trained on claims like the vector itself, takes most of that.
- **It does not take all of it.** Every cosine with a nuisance is 0 afterwards, and the intervals of the bias that is
  left exclude 0. What is left has another direction than the nuisance vectors, or is not linear in α.
- **In every module is no better** than over the whole vector here.
- **Better pairs do more** for honesty: the vector is about twice as strong. Already a fifth of true claims does that
  (with three times as many questions), and it alone leaves up to two thirds of the bias. Balancing takes the larger
  part of what these pairs leave, at the cost of four pairs in five: it has fewer of them than the vector before, and
  no less honesty than all of them. It does not take all either: on `dilemmas` it overshoots to a little Yes-saying, on
  claims and `truthfulness` a little No-saying is left, as much as after the projection.

Shares of ‖dW‖² that the projections took:

{removed}

## Where a repair does nothing

The vector of open questions, before and after:

{sound}

There is nothing to take away, and nothing is taken: a projection is safe for a sound vector, and no proof that
it was repaired. Projecting out `length` would be idle for all of these vectors: their cosines with it are near 0.
"""
