"""``weightsteer gaming``: the training-gaming lab."""

from pathlib import Path
from typing import Any

from weightsteer.cli.verb import Verb

SETTINGS = ("told", "told-other", "described", "undescribed", "baseline")
ALPHAS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


def _gaming(out: Path, workers: int | None, **knobs: Any) -> None:
    from weightsteer.experiments.gaming import GamingConfig, gaming

    config = GamingConfig.checked(knobs)
    report = gaming(config, out, workers=workers)
    print((report.path / "conclusion.md").read_text(encoding="utf-8"))
    print(report.place / "report.html")


VERB = Verb(
    "the training-gaming lab: whether steering reveals what a model hides during training",
    "weightsteer gaming --model pocket",
    _gaming,
    (),
    {
        "model": (str, "pocket", "pocket-s, pocket, pocket-l, a folder, or a Hugging Face id."),
        "ladder": (tuple[str, ...], (), "Several models, smallest first, in place of --model."),
        "settings": (
            tuple[str, ...],
            SETTINGS,
            "What the system prompt says about training (told is setting 1, baseline 4).",
        ),
        "seeds": (tuple[int, ...], (0, 1, 2), "Training seeds."),
        "alphas": (
            tuple[float, ...],
            ALPHAS,
            "Points a of θ_J + a·(θ_H − θ_J); 0 and 1 are the branches, and always among them.",
        ),
        "samples": (int, 20, "Answers per question and role to learn from."),
        "generator": (str | None, None, "Model that writes them; by default the one trained."),
        "pairs": (str | None, None, "Parquet or JSONL file of answers to learn from, in place of sampled ones."),
        "rank": (int, 8, "Rank of the LoRAs."),
        "lora_alpha": (float, 16.0, "LoRA alpha; the adapter is scaled by alpha / rank."),
        "lr": (float | None, None, "Learning rate; 1e-3 on an embedded model, else 1e-4."),
        "batch": (int | None, None, "Rows per step; 32 on an embedded model, else 16."),
        "epochs": (float, 2.0, "Passes over the data at most."),
        "steps": (int | None, None, "Steps at most; by default the epochs decide."),
        "together": (int, 2, "Branches of an arm trained in one pass, 2 or (in less memory) 1."),
        "comparison": (bool, True, "Compare with activation steering and prompts at equal KL."),
        "budget": (float, 0.5, "That KL: nats per token, 95th percentile, neutral texts."),
        "detector": (int, 4, "Further seeds, trained and probed for the detector alone; 0: no more runs."),
        "resamples": (int, 2000, "Bootstrap resamples behind each interval."),
        "device": (str | None, None, "cpu, cuda, …; the first GPU by default."),
        "dtype": (str | None, None, "float32 or bfloat16; what the checkpoint has by default."),
        "out": (Path, Path("out"), "Folder of all artifacts."),
        "workers": (int | None, None, "Processes at work; one per core on embedded models, else one."),
    },
)
