"""The command line: parse, call, print; no logic. One file per verb in ``verbs/``."""

from weightsteer.cli.listing import POCKET_VERBS, VERBS
from weightsteer.cli.main import INTERRUPTED, MISTAKE, main, overview, quiet
from weightsteer.cli.verb import Verb

__all__ = ["INTERRUPTED", "MISTAKE", "POCKET_VERBS", "VERBS", "Verb", "main", "overview", "quiet"]
