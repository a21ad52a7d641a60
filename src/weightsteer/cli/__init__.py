"""The command line: find the command, parse, call, and turn a mistake into one message.

The commands are classes of typed fields in `weightsteer.cli.commands`; their flags are made in `weightsteer.cli.flags`.
Both are imported when a command runs, so that ``weightsteer --help`` answers at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from weightsteer.errors import WeightsteerError, unknown
from weightsteer.files import printable
from weightsteer.versions import __version__

MISTAKE, INTERRUPTED, TERMINATED = 2, 130, 143

COMMANDS = {
    "replicate": "all of it: pairs, training, difference, sweep, report",
    "sweep": "behaviours × adapter families × seeds against baselines and controls, in one report",
    "data": "contrastive pairs: the same questions answered under both poles, judged and audited",
    "train": "fine-tune the two branches on the pairs",
    "diff": "the weight vector: the exact difference of the two branches",
    "eval": "measure a vector on held-out rows at several strengths",
    "calibrate": "strengths at which vectors, activation vectors and prompts have equal side effects",
    "subspace": "the share of a vector in each subspace of its model, compared with random ones",
    "ablate": "which layers, modules, directions and subspaces carry the effect of a vector",
    "attribute": "which modules the effect of a vector comes from, to first order, in one backward pass",
    "gaming": "whether steering reveals what a model hides during training",
    "report": "one report over the rows of several runs",
    "export": "write a vector as a LoRA folder for PEFT and vLLM, or merged into its base model",
    "list": "the evaluations, behaviours, adapters, bases, plans, controls and models there are",
    "store": "what is stored in an output folder, how large, and from what; --prune frees space",
    "store verify": "whether every artifact is as it was written: its inputs, its files, and their digests",
    "pocket build": "train an embedded model from random weights",
    "pocket score": "measure what an embedded model knows",
}
"""Every command with one line about it, in the order of the overview."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 a mistake (one message on standard error), 130 Ctrl-C,
    143 SIGTERM."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    try:
        _heed_termination()
        _check_folder()
        return _run(arguments)
    except WeightsteerError as error:
        return _mistake(error)
    except KeyboardInterrupt as stopped:
        terminated = isinstance(stopped, Terminated)
        what = "terminated" if terminated else "interrupted"
        print(f"\n{what}; run the same command again to go on from here", file=sys.stderr)
        return TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:  # the reader of our output, head or less, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from weightsteer.runtime.store import explain

        explained = explain(error, Path(getattr(error, "filename", None) or "."), " ".join(arguments[:1]))
        if explained is None:
            raise
        return _mistake(explained)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does: workers stopped, what is finished kept."""


def _heed_termination() -> None:
    def stop(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _open_streams() -> None:
    """Streams that can be written to, whatever the caller closed and whichever letters its encoding has.

    A number below 3 that is free would be that of the next file to be opened, and messages of libraries would go there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def _check_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise WeightsteerError("the working folder was removed: change to one that exists (cd).") from error


def _mistake(error: WeightsteerError) -> int:
    print(f"weightsteer: {printable(str(error), lines=True)}", file=sys.stderr)
    return MISTAKE


def _run(arguments: Sequence[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name == "pocket":
        pocket = {each.split()[1]: text for each, text in COMMANDS.items() if each.startswith("pocket ")}
        if not rest or rest[0] in ("-h", "--help"):
            print(_listed("weightsteer pocket", pocket))
            return 0
        if rest[0] not in pocket:
            raise unknown("command of weightsteer pocket", rest[0], pocket)
        name, *rest = f"pocket {rest[0]}", *rest[1:]
    if name == "store" and rest[:1] == ["verify"]:
        name, *rest = "store verify", *rest[1:]
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    from weightsteer.cli.flags import parse
    from weightsteer.runtime.executor import quiet

    quiet()
    parse(name, rest)()
    return 0


def overview() -> str:
    """What ``weightsteer --help`` prints."""
    return (
        "weightsteer: steering vectors in weight space, measured honestly.\n\n"
        + _listed("weightsteer", COMMANDS)
        + "\n\nStart with:\n  weightsteer replicate\n"
        "It needs no network and no GPU: it runs on an embedded model and ends with a report.\n"
        "Artifacts are stored under out/<model>/<behavior>/<adapter>/seed<k>/. A finished stage is not computed again."
    )


def _listed(usage: str, commands: Mapping[str, str]) -> str:
    lines = [f"  {name:<12} {summary}" for name, summary in commands.items()]
    usage = f"usage: {usage} COMMAND [--flags]      {usage} COMMAND --help lists its flags"
    return "\n".join([usage, "", *lines])
