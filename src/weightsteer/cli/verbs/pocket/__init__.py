"""The verbs of ``weightsteer pocket``."""
