"""Models as inputs of stages: known by their files, loaded only when a stage has to be made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightsteer.errors import WeightsteerError
from weightsteer.fetched import FETCHED, dequantised_folder, is_gguf, record_of
from weightsteer.files import digest_of, file_digest, parse_json, printable, read_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]

SMALL = 10_000_000
"""Below so many parameters the arithmetic of one step is shorter than the synchronisation of two threads."""

_MODEL_FILES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a model without loading it.

    Attributes:
        name: as tables show it.
        family: ``pocket`` for the embedded models, ``general`` for any other.
        digest: of its weights, tokenizer and configuration.
        device: where it runs; None: the first GPU, else the CPU.
        dtype: of its weights; None: what the checkpoint has.
        source: what it is loaded by: a name, a file or a folder.
        width: of the hidden states, where the configuration tells it: no change of a weight has a higher rank.
    """

    name: str
    family: str
    digest: str
    device: str | None
    dtype: str | None
    source: str = field(compare=False)
    width: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, source: str, device: str | None = None, dtype: str | None = None) -> "ModelSpec":
        """Look at the files of a model; one of the hub that is not in the local cache is downloaded first.

        Raises:
            WeightsteerError: there is no such model.
        """
        folder = _folder(source)
        if folder is None or not (folder / "config.json").is_file():
            from weightsteer.models import load_model

            load_model(source)  # says what is wrong, downloads, or dequantises
            folder = _folder(source)
        if folder is not None and is_gguf(source):
            # its files are compared with their recorded digests when it is loaded
            digest = digest_of((record_of(folder) or {})["files"])
            return cls(source if source in FETCHED else Path(source).name, "general", digest, device, dtype, source)
        if folder is None:
            raise WeightsteerError(f"the model {source!r} was loaded, but its files are not in the local cache.")
        config = _config(folder / "config.json")
        pocket = isinstance(config.get("weightsteer_pocket"), str)
        files = sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES and path.is_file())
        shown = printable(folder.resolve().name if Path(source).is_dir() or pocket else source)
        digest = digest_of({file.name: _content(file) for file in files})
        text = config.get("text_config")
        width = config.get("hidden_size", text.get("hidden_size") if isinstance(text, dict) else None)
        family = "pocket" if pocket else "general"
        return cls(shown, family, digest, device, dtype, source, width if isinstance(width, int) else None)

    def check_rank(self, rank: int) -> None:
        """Refuse a rank that no change of a weight of this model has; it would only need time and memory.

        Raises:
            WeightsteerError: it is higher than the model is wide.
        """
        if self.width is not None and rank > self.width:
            raise WeightsteerError(
                f"rank {rank} is higher than that of any weight of {self.name}, whose hidden states have {self.width} "
                "entries. Give a smaller one with --rank."
            )

    @property
    def embedded(self) -> bool:
        """Whether it is one of the embedded models or a build of one."""
        return self.family == "pocket"

    def load(self) -> "Loaded":
        """The model and its tokenizer."""
        from transformers.utils.logging import disable_progress_bar

        from weightsteer.models import load_model

        disable_progress_bar()  # by now the files are here: what it would show is the reading of a local file
        return load_model(self.source, device=self.device, dtype=self.dtype)


def _config(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text(path, "configuration of the model"))
    except ValueError as error:
        raise WeightsteerError(f"{path} is not JSON ({error}): copy or download the model again.") from error
    if not isinstance(content, dict):
        raise WeightsteerError(f"{path} holds no configuration, an object of fields: copy or download the model again.")
    return content


def _folder(name: str) -> Path | None:
    from weightsteer.embedded import POCKET, weights_folder

    if name in POCKET:
        return weights_folder(name)
    if is_gguf(name):
        return dequantised_folder(name)
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
