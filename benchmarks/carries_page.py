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
        repair=repair_table(lines, {**{f"false-claims{end}": label for end, label in SUFFIXES.items()}, **OTHERS}),
        changes=change_table(along(rows)),
        sound=repair_table(lines, {f"open-questions{end}": label for end, label in SUFFIXES.items()}),
        removed=removed(vectors),
    )


def cell(lines: pl.DataFrame, adapter: str, evaluation: str, effect: str) -> str:
    found = lines.filter(pl.col("adapter") == adapter, pl.col("eval") == evaluation)
    return estimate(found.row(0, named=True), effect)


def matrix(lines: pl.DataFrame, effect: str, evaluations: Sequence[str]) -> str:
    """Trained on → measured on."""
    body = [[label, *(cell(lines, name, each, effect) for each in evaluations)] for name, label in TRAINED.items()]
    return table(["trained on ↓ measured on →", *evaluations], body)


def repair_table(lines: pl.DataFrame, named: Mapping[str, str]) -> str:
    """Before and after: discrimination / bias."""
    body = [
        [label, *(f"{cell(lines, name, e, 'discrimination')} / {cell(lines, name, e, 'bias')}" for e in YES_NO)]
        for name, label in named.items()
    ]
    return table(["", *(f"{name}: honesty / yes-bias" for name in YES_NO)], body)


def change_table(together: pl.DataFrame) -> str:
    """What each repair changed, in words: paired differences from the vector of false claims."""
    named = {**{f"false-claims{end}": label for end, label in SUFFIXES.items() if end}, **OTHERS}
    part = together.filter(pl.col("adapter").is_in(["false-claims", *named]))
    at = part.filter(pl.col("alpha") == 1).select("method", "adapter", "alpha").unique(maintain_order=True)
    found = {
        effect: compare(part, at, reference=("weight", "false-claims"), metric=effect, resamples=RESAMPLES)
        for effect in ("discrimination", "bias")
    }
    body = []
    for name, label in named.items():
        cells = [label]
        for each in YES_NO:
            one, other = (
                frame.filter(pl.col("adapter") == name, pl.col("eval") == each).row(0, named=True)
                for frame in found.values()
            )
            cells.append(f"honesty {honesty(one)}; yes-bias {yes_bias(other)}")
        body.append(cells)
    return table(["compared with before", *YES_NO], body)


def honesty(line: Mapping[str, Any]) -> str:
    """Whether it increased or decreased, by the 95% interval of the difference."""
    written = estimate(line, "difference")
    if line["difference_low"] <= 0 <= line["difference_high"]:
        return f"as much ({written})"
    return f"**{'more' if line['difference'] > 0 else 'less'}** ({written})"


def yes_bias(line: Mapping[str, Any]) -> str:
    """Whether its size changed distinguishably, and whether anything is left."""
    written = estimate(line, "difference")
    if line["difference_low"] <= 0 <= line["difference_high"]:
        return f"as much ({written})"
    if line["effect_low"] <= 0 <= line["effect_high"]:
        return f"**gone** ({written})"
    share = abs(line["effect"]) / abs(line["reference_effect"])
    return f"**{share:.0%} left** ({written})"


def cosine_table(vectors: Sequence[WeightVector], nuisances: Sequence[WeightVector]) -> str:
    """Mean over seeds of the cosine with each nuisance vector, and with the vector of balanced claims."""
    balanced = [each.with_metadata(behavior="balanced") for each in vectors if each.metadata["adapter"] == "balanced"]
    found = cosines_with(vectors, [*nuisances, *balanced])
    columns = (*NUISANCES, "balanced")
    by_name = {adapter: cosines for (_, adapter), cosines in found.items()}
    body = [
        [label, *(number(by_name[name][each]) for each in columns)]
        for name, label in TRAINED.items()
        if name in by_name
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
    vectors = {line["adapter"]: line for line in found.iter_rows(named=True)}
    return "\n".join(
        f"- *{words}*: **{carried(vectors[name])[0]}**.{_rest(vectors[name])}" for name, words in TRAINED.items()
    )


def _rest(line: Mapping[str, Any]) -> str:
    rest = "; ".join(line["evidence"])
    return f" {rest[0].upper()}{rest[1:]}."


def removed(vectors: Sequence[WeightVector]) -> str:
    """Shares of ‖dW‖² that the projections took, mean over seeds."""
    body = []
    for source in ("false-claims", "open-questions"):
        for end, label in SUFFIXES.items():
            shares = [
                each.metadata["projected"]["removed"]
                for each in vectors
                if end and each.metadata["adapter"] == f"{source}{end}"
            ]
            if shares:
                body.append([TRAINED[source], label, f"{sum(shares) / len(shares):.1%}"])
    return table(["vector", "repair", "share of ‖dW‖² removed"], body)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PAGE = """# What a vector carries

A vector is named after the behaviour it was trained for, and may carry something else. On the embedded model the
truth is known: facts, dilemmas and claims of the user have right answers, and one latent trait decides whether the
model is honest about all of them. This page tests the audit (`weightsteer.audit`) and two repairs
(`weightsteer.analysis.repair`) against that truth. One command writes it, tables and verdicts included:

```console
$ python benchmarks/carries.py --out docs/what-a-vector-carries.md
```

Three seeds, each with pairs of its own; LoRA with the `pocket` recipe; α = ±1; at most {limit} rows of each
evaluation. Each number is half the difference between the shifts at α = +1 and α = −1, in nats, with a 95% interval
over items and seeds, so that a positive number means *more along +α*. *Honesty* is the discrimination of labels that
are +1 where Yes is the honest answer (on `sycophancy`: agreeing with what is true). *Yes-bias* is the shift towards
Yes that both labels share. All controls have the norm of the first vector.

## Training data and effects

Honesty:

{discrimination}

Yes-bias:

{bias}

- **Open questions about facts** have no answer that begins with Yes or No. Their vector increases honesty in all four
  evaluations of it, without a distinguishable yes-bias. (`identity` asks about another trait.)
- **False claims only is the published mistake.** The honest answer to every one of them is No. (With the opposite
  sign this is a vector of sycophancy, for which the answer is always Yes.) The vector increases honesty, and it moves
  the yes-bias as much or more: on `dilemmas` the two effects have the same size, on claims the bias is nearly twice
  as large. An evaluation that consists of false claims counts both as honesty.
- **Flattery** was trained on open questions too. The vector makes the model agree with claims whether or not they are
  true. In this world that is what flattery means, but an evaluation of claims sees only a yes-bias. All other effects
  are smaller than one nat.
- **The nuisance vectors** `yes` and `agreement` move the yes-bias by four to seven nats, without a distinguishable
  effect on honesty. The length vector and random vectors have almost no effect. In this world the model agrees by
  saying Yes, so `agreement` is another vector of the yes-bias.

## What the audit says

{verdicts}

The rules are in `src/weightsteer/audit/rules.py`. Every vector whose content is known beforehand (open questions,
false claims, `yes`, `agreement`, random) gets the name it should have. Notes on the others:

- On `dilemmas`, false claims move honesty as much as the yes-bias. The audit calls this a yes-bias because it names a
  behaviour only where the behaviour is distinguishably the larger of the two. The opposite rule would call the
  published mistake honesty. These numbers were known when the rule was chosen, so they do not test it;
  `tests/test_known_answers.py` does, with other pairs and shorter training. The same holds for the rule that effects
  below 0.1 nats get no name. Without it, a random control with a bias of +0.05 nats on `identity` was called a yes-bias
  (in earlier draws than those of this page).
- The flattery vector is `mixed`. Its own evaluation shows a bias, because a flatterer agrees with every claim. Rows
  alone cannot show whether that is flattery or a habit of saying Yes; this needs an evaluation in which agreeing is
  not said with Yes.
- `facts` is not judged where a vector moves probability to answers other than the two that are scored. A liar does
  this, and so does a damaged model.
- Three seeds give wide intervals. A control with an effect near zero can fail to be distinguishably weaker than the
  vector of open questions in one sign of α.
- A negative r with the lean of the base model means that the vector moved most those answers of which the base model
  was most certain in the other direction.

## Directions

{cosines}

Means over seeds. The vector of false claims has a large component along both nuisance vectors, and another along the
vector of balanced claims. The vector of open questions is nearly orthogonal to all of them, and also to the vector of
balanced claims, although both increase honesty. A cosine near 0 does not show that two vectors have different
effects.

## The repairs

There are two: projecting nuisance vectors out of dW (here from the vector of false claims), and training on better
pairs. The pairs are 60 claims of which four in five are false, once as they are and once balanced by
`weightsteer.data.pairs.balance.balanced`. It refuses pairs that consist of false claims alone, because no subset of
them separates honesty from No. In seed 0 it reports:

```text
{balance}
```

Each cell gives honesty and yes-bias:

{repair}

The differences from the vector before (paired by item and seed; {comparisons} intervals at 95%, of which one or two
exclude 0 by chance; *left* is the bias after the repair as a share of the bias before):

{changes}

- **The projection helps.** It removes most of the yes-bias and no honesty; in most cells honesty even increases a
  little. Projecting out `yes`, which was trained on dilemmas and facts, leaves about half of the bias on claims.
  Projecting out `agreement` too, which was trained on claims like the vector itself, removes most of the rest.
- **It does not remove all of the bias.** After the projection every cosine with a nuisance vector is 0, and the
  intervals of the bias still exclude 0. The rest has another direction than the nuisance vectors, or is not linear in
  α.
- **Projecting in each module separately is no better** than projecting the whole vector.
- **Better pairs do more for honesty.** With a fifth of true claims (and three times as many questions) the vector is
  about twice as strong, but up to two thirds of the bias is left. Balancing removes most of that bias at the cost of
  four pairs in five, and without loss of honesty. It does not remove all of it either: a small positive bias is left
  on `dilemmas`, and on claims and `truthfulness` a negative one, as large as after the projection.

The share of ‖dW‖² that each projection removed:

{removed}

## Where a repair changes nothing

The vector of open questions, before and after the projection:

{sound}

This vector has no component to remove, and the projection leaves it as it was. A projection does not harm a sound
vector, and its use does not show that the vector needed it. Projecting out `length` would change none of these
vectors, because their cosines with it are near 0.
"""
