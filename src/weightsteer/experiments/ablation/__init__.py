"""The ablation experiment: which component of a vector carries its effect, and how much of it is in which subspace."""
