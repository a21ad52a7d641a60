"""What one arm of one seed has brought forth, and the tables over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightsteer.experiments.gaming.bench import Bench
from weightsteer.experiments.gaming.protocol import ROLES, Cell
from weightsteer.runtime.store import Artifact

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Leg:
    """The artifacts of one arm and seed; a run for the detector alone has no curve."""

    bench: Bench
    seed: int
    cell: Cell
    branches: Artifact
    signals: Artifact
    curve: Artifact | None = None
    comparison: Artifact | None = None

    @property
    def named(self) -> dict[str, Any]:
        return {
            "model": self.bench.identity.name,
            "setting": self.cell.setting,
            "deployment": self.cell.deployment,
            "seed": self.seed,
        }


def curves(legs: Sequence[Leg]) -> "pl.DataFrame":
    """All rows of all curves."""
    import polars as pl

    return pl.concat([pl.read_parquet(leg.curve.path / "curve.parquet") for leg in legs if leg.curve])


def comparisons(legs: Sequence[Leg]) -> "pl.DataFrame | None":
    """All rows of the comparison with other methods; None when there is none."""
    import polars as pl

    found = [pl.read_parquet(leg.comparison.path / "comparison.parquet") for leg in legs if leg.comparison]
    return pl.concat(found) if found else None


def runs(legs: Sequence[Leg]) -> "pl.DataFrame":
    """One line per run: its arm and its signals."""
    import polars as pl

    return pl.DataFrame([{**leg.named, **leg.signals.read_json("signals.json")} for leg in legs])


def training(legs: Sequence[Leg]) -> "pl.DataFrame":
    """One line per branch: first and last loss in nats per token (means of five steps), and ‖τ‖, cosine and ‖dW‖."""
    import polars as pl

    lines = []
    for leg in legs:
        if leg.curve is None:
            continue
        norms = leg.curve.read_json("norms.json")
        losses = leg.branches.read_json("training.json")["losses"]
        for role in ROLES:
            own = losses[role]
            ends = {"first_loss": sum(own[:5]) / len(own[:5]), "last_loss": sum(own[-5:]) / len(own[-5:])}
            sizes = {"norm": norms[role], "line": norms["line"], "cosine": norms["cosine"]}
            lines.append({**leg.named, "trained_on": role, **ends, **sizes})
    return pl.DataFrame(lines)
