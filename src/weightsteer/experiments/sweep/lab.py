"""Where the stages run: a model known by its files, loaded only when a stage has to be made."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from weightsteer.data.behaviors import Behavior
from weightsteer.errors import WeightsteerError
from weightsteer.experiments.sweep.config import GENERAL_SEEDS, POCKET_SEEDS, RunConfig
from weightsteer.runtime.store import Artifact, Store, digest_of, file_digest, safe_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Loaded = tuple["PreTrainedModel", "PreTrainedTokenizerBase"]

Baseline = Literal["activation", "prompt"]
BASELINES: tuple[Baseline, ...] = ("activation", "prompt")


@dataclass(frozen=True)
class ModelIdentity:
    """What is known of a model without loading it. ``digest`` covers its weights, tokenizer and configuration."""

    name: str
    family: str
    digest: str

    @classmethod
    def of(cls, name: str) -> "ModelIdentity":
        """Look at the files of ``name``; a hub model that is not in the local cache is downloaded first.

        Raises:
            WeightsteerError: there is no such model.
        """
        folder = _folder(name)
        if folder is None or not (folder / "config.json").is_file():
            from weightsteer.models import load_model

            load_model(name)  # says what is wrong, or downloads
            folder = _folder(name)
        if folder is None:
            raise WeightsteerError(f"the model {name!r} was loaded, but its files are not in the local cache.")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        pocket = isinstance(config.get("weightsteer_pocket"), str)
        files = sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES and path.is_file())
        shown = folder.resolve().name if Path(name).is_dir() or pocket else name
        return cls(shown, "pocket" if pocket else "general", digest_of({f.name: _content(f) for f in files}))


# Below so many parameters the arithmetic of one step is shorter than the synchronisation of two threads.
SMALL = 10_000_000
_MODEL_FILES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}


def _folder(name: str) -> Path | None:
    from weightsteer.pocket import weights_folder
    from weightsteer.pocket.sizes import SIZES

    if name in SIZES:
        return weights_folder(name)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _content(path: Path) -> str:
    # The hub's cache names each file by its content already: no need to read gigabytes again.
    return path.resolve().name if path.is_symlink() and path.resolve().parent.name == "blobs" else file_digest(path)


class Models:
    """The model that is trained and measured, and the one that writes the pairs; loaded when first needed."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self.trained_identity = ModelIdentity.of(config.model)
        generator = config.generator
        self.generator_identity = ModelIdentity.of(generator) if generator else self.trained_identity

    @cached_property
    def trained(self) -> Loaded:
        return self._load(self._config.model)

    @cached_property
    def generator(self) -> Loaded:
        if self.generator_identity == self.trained_identity:
            return self.trained
        return self._load(str(self._config.generator))

    def _load(self, name: str) -> Loaded:
        import torch
        from transformers.utils.logging import disable_progress_bar

        from weightsteer.models import load_model

        disable_progress_bar()  # by now the files are here: what it would show is the reading of a local file
        model, tokenizer = load_model(name, device=self._config.device, dtype=self._config.dtype)
        alone = self.generator_identity == self.trained_identity
        if alone and model.device.type == "cpu" and model.num_parameters() < SMALL:
            # Threads that share so little work only wait for each other, on a busy machine for minutes; and
            # with one of them the bytes do not depend on the number of cores.
            torch.set_num_threads(1)
        return model, tokenizer


def _family_code(adapter: str) -> str:
    """The module of an adapter family: the settings of one must not make the others train again.

    Found by reading, because importing the families takes seconds.

    Raises:
        WeightsteerError: there is no such family; the message suggests the nearest.
    """
    for path in sorted((Path(__file__).parents[2] / "adapters").glob("*.py")):
        if f'@register("{adapter}")' in path.read_text(encoding="utf-8"):
            return f"adapters.{path.stem}"
    from weightsteer import adapters

    adapters.get(adapter)  # one that the user has registered, or a mistake
    return "adapters"


class Lab:
    """One behaviour and one adapter family on one model, at work in one output folder.

    Attributes:
        asked: the behaviour as it was asked for, a name or a file.
        baseline: in the place of a family, what its vectors are compared with: ``activation`` or ``prompt``. None in a
            lab of a family.
        lead: the lab of the first family of the run, with which is made what all families share.
    """

    def __init__(
        self,
        config: RunConfig,
        models: Models,
        store: Store,
        behavior: str,
        adapter: str,
        *,
        baseline: Baseline | None = None,
        lead: "Lab | None" = None,
    ) -> None:
        self.models = models
        self.store = store
        self.identity = models.trained_identity
        self.asked = behavior
        self.behavior = Behavior.load(behavior, family=self.identity.family)
        self.adapter = adapter
        self.family_code = _family_code(adapter)
        self.baseline = baseline
        self.lead = lead or self
        folders = (self.identity.name, self.behavior.name, baseline or adapter)
        self.home = Path(*map(safe_name, folders))
        pocket = self.identity.family == "pocket"
        self.seeds = config.seeds or (POCKET_SEEDS if pocket else GENERAL_SEEDS)
        if baseline == "prompt":
            self.seeds = (0,)  # nothing is trained; the wordings of a prompt are its seeds
        self.evals = config.evals or tuple(self.behavior.evaluations)
        self.recipe = config.training.recipe or ("pocket" if pocket else "paper")
        self.changes = config.training.model_dump(exclude={"recipe"}, exclude_none=True)
        self.config = config
        self.alone = (len(config.behavior), len(config.adapter)) == (1, 1) and not config.compare

    @property
    def name(self) -> str:
        """What tells its vectors from those of other labs."""
        return f"{self.behavior.name}, {self.baseline or self.adapter}"

    def on(self, identity: ModelIdentity) -> dict[str, Any]:
        """What a stage's key has to know of the model it runs."""
        return {**asdict(identity), "device": self.config.device, "dtype": self.config.dtype}

    def check(self) -> None:
        """Refuse a misspelt recipe before anything is made, not after minutes of generation."""
        from weightsteer.training import Recipe

        Recipe.load(self.recipe, self.adapter, **self.changes)

    def make(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        code: Sequence[str],
        build: Callable[[Path], None],
        *,
        seed: int | None = None,
        name: str | None = None,
        home: Path | None = None,
    ) -> Artifact:
        """`Store.stage` with a link for people in this lab's folder, and a line on standard error."""

        def checked(work: Path) -> None:
            self.check()
            build(work)

        name = name or stage
        link = (home or self.home) / (f"seed{seed}" if seed is not None else "") / name
        started = time.monotonic()
        artifact = self.store.stage(stage, inputs, code, checked, link)
        where = f"seed {seed}" if seed is not None else "all seeds"
        told = f"{where:<10}" if self.alone or home else f"{f'{self.name}, {where}':<28}"
        how = "kept from before" if artifact.cached else f"{time.monotonic() - started:.1f} s"
        if self.alone or not artifact.cached:  # of several labs, whole vectors are told as kept
            self.tell(f"{told} {name:<22} {how}")
        return artifact

    def tell(self, line: str) -> None:
        """A line on standard error, unless the store is only looked through."""
        if not self.store.looks:
            print(line, file=sys.stderr)
