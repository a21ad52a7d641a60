"""The ablation experiment: which part of a vector carries its effect, and how much of it lies in which subspace."""
