"""Find the verb, call it, and turn mistakes into one message. Heavy imports happen inside the verbs."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from weightsteer import __version__
from weightsteer.cli.listing import POCKET_VERBS, VERBS
from weightsteer.cli.parse import parse
from weightsteer.cli.verb import Verb
from weightsteer.errors import WeightsteerError, unknown

MISTAKE, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 a mistake (one message on standard error), 130 Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except WeightsteerError as error:
        return _told(str(error))
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, head or less, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from weightsteer.runtime.store import explain

        explained = explain(error, Path(getattr(error, "filename", None) or "."), " ".join(arguments[:1]))
        if explained is None:
            raise
        return _told(str(explained))


def _told(message: str) -> int:
    print(f"weightsteer: {message}", file=sys.stderr)
    return MISTAKE


def _run(arguments: list[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    verbs = VERBS
    if name == "pocket" and rest and rest[0] in POCKET_VERBS:
        name, *rest = f"pocket {rest[0]}", *rest[1:]
        verbs = {f"pocket {each}": verb for each, verb in POCKET_VERBS.items()}
    elif name == "pocket":
        if rest and rest[0] not in ("-h", "--help"):
            raise unknown("verb of weightsteer pocket", rest[0], POCKET_VERBS)
        print(_listed("weightsteer pocket VERB", POCKET_VERBS))
        return 0
    if name not in verbs:
        raise unknown("verb", name, [*VERBS, "pocket"])
    quiet()
    verb = verbs[name]
    told = parse(name, verb, rest)
    verb.call(**told)
    return 0


def overview() -> str:
    """What ``weightsteer --help`` prints."""
    pocket = Verb("build the embedded models, or measure what they know", "", print)
    return (
        "weightsteer: steering vectors in weight space, measured honestly.\n\n"
        + _listed("weightsteer VERB", {**VERBS, "pocket": pocket})
        + "\n\nStart with:\n  weightsteer replicate\n"
        "It needs no network and no GPU: it runs on an embedded model and ends with a report.\n"
        "Artifacts lie under out/<model>/<behavior>/<adapter>/seed<k>/; what is finished is not made again."
    )


def _listed(usage: str, verbs: dict[str, Verb]) -> str:
    lines = [f"  {name:<10} {verb.summary}" for name, verb in verbs.items()]
    return "\n".join([f"usage: {usage} [--flags]      {usage} --help lists its flags", "", *lines])


def quiet() -> None:
    """No warnings of libraries about their own future: progress and mistakes are what a user has to see."""
    warnings.simplefilter("ignore", FutureWarning)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
