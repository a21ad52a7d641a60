"""Experiments: stages put together, each with its page. One folder each."""
