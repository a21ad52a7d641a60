"""What is in a vector: its subspaces, ablations and ranks, what can be projected out, the distance of another base."""
