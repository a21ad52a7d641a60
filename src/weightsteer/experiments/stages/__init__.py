"""The stages that several experiments share: pairs, branches, vectors, and the rows of evaluations."""
