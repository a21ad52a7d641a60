"""The page of an analysis: ablations of vectors, or their alignment with subspaces."""

from weightsteer.experiments.ablation.page.write import write_ablations

__all__ = ["write_ablations"]
