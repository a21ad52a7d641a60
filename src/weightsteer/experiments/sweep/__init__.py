"""Experiments: what a run is, the stages it is made of, and the whole of them over families and seeds."""
