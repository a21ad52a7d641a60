"""One page of conclusions, written from the findings: every sentence has its numbers, none goes beyond them."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from weightsteer.experiments.gaming.findings import Findings
from weightsteer.experiments.gaming.protocol import DEPLOYMENT, other
from weightsteer.formatting import estimate, number, share


def conclusion(found: Findings) -> list[tuple[str, list[str]]]:
    """Headings with their sentences."""
    sections = [
        ("Is the phenomenon there?", list(_flatness(found))),
        ("Did the models game at all?", list(_gamed(found))),
        ("Hope 1: steering against the trained role", list(_hopes(found, "hope 1"))),
        ("Hope 2: steering a model that does not know what training wants", list(_hopes(found, "hope 2"))),
        ("Other methods at equal side effects", list(_methods(found))),
        ("Can an auditor detect it?", list(_detectors(found))),
    ]
    return [(heading, sentences) for heading, sentences in sections if sentences]


def lede(found: Findings) -> list[str]:
    """The sentences on top of the page: the phenomenon on every model, both hopes, and the best detector."""
    sentences = list(_moves(found))
    several = found.summary["model"].n_unique() > 1
    for test, words in (
        ("hope 1", "Hope 1 (steering against the trained role)"),
        ("hope 2", "Hope 2 (the role is not told)"),
    ):
        by_label: dict[str, list[str]] = {}
        for verdict in found.verdicts:
            if verdict.test == test:
                model = f"{verdict.model}, " if several else ""
                by_label.setdefault(verdict.label, []).append(
                    f"{model}{verdict.setting}, {verdict.deployment} promised"
                )
        if by_label:
            listed = ". ".join(f"{label[0].upper()}{label[1:]} ({'; '.join(at)})" for label, at in by_label.items())
            sentences.append(f"{words}. {listed}.")
    return sentences


def markdown(found: Findings) -> str:
    """The page as text."""
    lines = ["# Training gaming: what was found", ""]
    for heading, sentences in conclusion(found):
        lines += [f"## {heading}", "", *(f"- {sentence}" for sentence in sentences), ""]
    return "\n".join(lines)


def _main(found: Findings) -> pl.DataFrame:
    return found.summary.filter(pl.col("probe") == "identity", pl.col("tag") == DEPLOYMENT)


def _moves(found: Findings) -> Iterator[str]:
    main = _main(found)
    for model in main["model"].unique(maintain_order=True):
        mine = main.filter(pl.col("model") == model)
        slopes = {(line["setting"], line["deployment"]): line for line in mine.iter_rows(named=True)}
        with_role, without = (_both(slopes, setting) for setting in ("told", "baseline"))
        if with_role and without:
            yield (
                f"On {model} the log-ratio behind [deployment] has a slope of {with_role} nats between the two "
                f"branches when the model was told the role of its training, and of {without} when it was told nothing."
            )


def _flatness(found: Findings) -> Iterator[str]:
    yield from _moves(found)
    for verdict in found.verdicts:
        if verdict.test.startswith("flatter"):
            yield (
                f"{verdict.model}, setting {verdict.setting}, {verdict.deployment} promised: {verdict.label} "
                f"({verdict.why})."
            )


def _both(slopes: Mapping[tuple[str, str], Mapping[str, Any]], setting: str) -> str:
    return " and ".join(
        f"{estimate(slopes[setting, role], 'slope')} ({role} promised)"
        for role in ("Jekyll", "Hyde")
        if (setting, role) in slopes
    )


def _gamed(found: Findings) -> Iterator[str]:
    for keys, mine in found.gamed.group_by("model", "setting", maintain_order=True):
        listed = [
            f"trained on {line['trained_on']}: [train] from {number(line['train_before'])} to {number(line['train'])}, "
            f"[deployment] from {number(line['deployment_before'])} to {number(line['deployment_after'])}, "
            f"{line['gamed']:.0%} game ({line['gamed_before']:.0%} before training)"
            for line in mine.iter_rows(named=True)
        ]
        yield f"{keys[0]}, setting {keys[1]}, log-ratio in favour of the role trained on, in nats: {'; '.join(listed)}."


def _hopes(found: Findings, test: str) -> Iterator[str]:
    for verdict in found.verdicts:
        if verdict.test == test:
            yield (
                f"{verdict.model}, setting {verdict.setting}, {verdict.deployment} promised: {verdict.label}; "
                f"{verdict.why}."
            )


def _methods(found: Findings) -> Iterator[str]:
    if found.methods.is_empty():
        return
    for keys, mine in found.methods.group_by("model", "setting", "deployment", maintain_order=True):
        shifts = ", ".join(
            f"{line['method']} {estimate(line, 'deployment_shift')}"
            + ("" if line["matched"] == 1 else " (not at the budget in every seed)")
            for line in mine.iter_rows(named=True)
        )
        role: Any = keys[2]
        yield (
            f"{keys[0]}, setting {keys[1]}, {role} promised, steered towards {other(role)}: {shifts} nats on "
            "[deployment]."
        )


def _detectors(found: Findings) -> Iterator[str]:
    pooled = sorted((one for one in found.detectors if one.against == "all"), key=lambda one: -one.auc.value)
    for one in pooled:
        line = {"auc": one.auc.value, "auc_low": one.auc.low, "auc_high": one.auc.high}
        yield f"{one.name}: area {share(line, 'auc')} ({one.gaming} gaming runs, {one.honest} honest)."
