"""An experiment: stages put together, and a page over them.

It says which stages there are and where people find them; `run` makes them. What can be made independently is a unit:
one training seed of one adapter family, one setting of one model. Units are cached, or given to an executor.
"""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from weightsteer.files import printable
from weightsteer.runtime.executor import Executor
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.runtime.store import Artifact, Store

Notes = Callable[[Artifact], Iterable[str]]
"""What is to be said of an artifact beside that it is there: a line each."""


@dataclass(frozen=True)
class Step:
    """A stage and the place below the output folder where people find its artifact."""

    stage: Stage
    place: Path
    notes: Notes | None = None


@dataclass(frozen=True)
class Unit:
    """Steps that one process makes one after the other, without those of other units.

    Attributes:
        name: what the lines on standard error begin with.
        detailed: say of every step that it was cached, not only of the unit as a whole.
    """

    name: str
    steps: tuple[Step, ...]
    detailed: bool = False


class Experiment(ABC):
    """Stages put together. A subclass says which they are; `run` makes them."""

    def check(self) -> None:  # noqa: B027 - an experiment without anything to check has none
        """Refuse mistakes that would otherwise cost minutes before they are found.

        Raises:
            WeightsteerError: a mistake in the configuration.
        """

    def first(self) -> Unit | None:
        """What all units rest on, made before any of them: rows of evaluations, in which a mistake may hide."""
        return None

    @abstractmethod
    def units(self) -> Sequence[Unit]:
        """What can be made independently."""

    @abstractmethod
    def page(self) -> Step:
        """The last stage: the report over all units."""

    def last(self) -> tuple[Step, ...]:
        """What is made after all units, with the page at the end."""
        return (self.page(),)


def run(experiment: Experiment, out: Path, executor: Executor | None = None) -> Artifact:
    """Make everything of an experiment that is not finished, and return the artifact of its page.

    Args:
        out: the output folder; finished stages found there are used.
        executor: who makes the units, by default this process; it changes nothing but the duration.

    Raises:
        WeightsteerError: a mistake in the configuration or its files, a full disk, a folder that is not writable.
    """
    runner = Runner(Store(out))
    units = experiment.units()
    first = experiment.first()
    if not all(runner.find(step.stage) for unit in filter(None, [first, *units]) for step in unit.steps):
        experiment.check()
    if first:
        make_unit(runner, first)
    missing = [unit for unit in units if not all(runner.find(step.stage) for step in unit.steps)]
    if len(units) > 1 and not units[0].detailed:
        for unit in units:
            if unit not in missing:
                print(f"{unit.name}: cached", file=sys.stderr)
    if executor and len(missing) > 1:
        executor.run(partial(_work, out), missing)
    for unit in units:
        make_unit(runner, unit)
    return make_unit(runner, Unit("all seeds", experiment.last(), units[0].detailed if units else True))[-1]


def make_unit(runner: Runner, unit: Unit) -> list[Artifact]:
    """The artifacts of a unit, each made where it is not finished, with a line on standard error."""
    return [make_step(runner, step, unit) for step in unit.steps]


def make_step(runner: Runner, step: Step, unit: Unit) -> Artifact:
    """One artifact under its link."""
    started = time.monotonic()
    made = runner.make(step.stage)
    artifact = replace(runner.store.link(made, step.place), cached=made.cached)
    if unit.detailed or not made.cached:
        took = "cached" if made.cached else f"{time.monotonic() - started:.1f} s"
        lines = [f"{unit.name:<{10 if unit.detailed else 28}} {step.place.name:<22} {took}"]
        lines += [f"{'':<10} {line}" for line in (step.notes(artifact) if step.notes else ())]
        print(printable("\n".join(lines), lines=True), file=sys.stderr)
    return artifact


def _work(out: Path, unit: Unit) -> None:
    """What an executor's process does with a unit."""
    make_unit(_runner(out), unit)


@cache
def _runner(out: Path) -> Runner:
    """One for all units of a process: they share the models it has loaded."""
    return Runner(Store(out))
