"""What every experiment runs on: stages, the store of their artifacts, and the processes that share the work."""

from weightsteer.runtime.executor import Executor, processes
from weightsteer.runtime.experiment import Experiment, Step, Unit, make_step, make_unit, run
from weightsteer.runtime.inputs import InputFile, InputFolder
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.runtime.store import SCRATCH, Artifact, Store

__all__ = [
    "SCRATCH",
    "Artifact",
    "Executor",
    "Experiment",
    "InputFile",
    "InputFolder",
    "ModelSpec",
    "Runner",
    "Stage",
    "Step",
    "Store",
    "Unit",
    "make_step",
    "make_unit",
    "processes",
    "run",
]
