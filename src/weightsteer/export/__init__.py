"""Ship a vector: summed into the weights of a model, or as an adapter that plain PEFT loads."""

from weightsteer.export.checkpoint import CheckpointReport, export_merged
from weightsteer.export.factors import LeftOut
from weightsteer.export.merge import merge_into
from weightsteer.export.peft_folder import ExportReport, export_peft
from weightsteer.export.proof import Difference, Probe, Proof
from weightsteer.export.realised import CastWarning, MergeReport, Realised

__all__ = [
    "CastWarning",
    "CheckpointReport",
    "Difference",
    "ExportReport",
    "LeftOut",
    "MergeReport",
    "Probe",
    "Proof",
    "Realised",
    "export_merged",
    "export_peft",
    "merge_into",
]
