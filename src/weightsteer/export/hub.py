"""Put a finished folder on the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not in its __all__

from weightsteer.errors import WeightsteerError


def check(repo_id: str) -> None:
    """Whether a push can work, before minutes are spent on what is to be pushed.

    Raises:
        WeightsteerError: the name is no repository id, there is no valid token, or the hub cannot be reached.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise WeightsteerError(f"{repo_id!r} is no name of a hub repository (owner/name): {error}") from error
    try:
        HfApi().whoami()
    except Exception as error:  # the client's own errors, and those of the HTTP library beneath it
        raise WeightsteerError(f"cannot push to {repo_id}: {_reason(error)}") from error


def push(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Upload the folder as a model repository, which is made when there is none; returns its address.

    Raises:
        WeightsteerError: it did not work, or the repository is public and was to be private. The folder stays.
    """
    api = HfApi()
    try:
        # None, not False: what the owner's account prefers
        api.create_repo(repo_id, private=private or None, repo_type="model", exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type="model").private:
            raise WeightsteerError(
                f"{repo_id} exists and is public, and --private would not change that: nothing was uploaded. "
                "Choose another name, or make it private in its settings. "
                f"The export is in {folder}."
            )
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, repo_type="model", commit_message="Upload by weightsteer export"
        )
    except WeightsteerError:
        raise
    except Exception as error:
        raise WeightsteerError(
            f"cannot push to {repo_id}: {_reason(error)} The export is complete in {folder}; later "
            f"`hf upload {repo_id} {folder}` does the same."
        ) from error
    return str(commit.repo_url)


def _reason(error: Exception) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no hub token here. Run `hf auth login`, or set HF_TOKEN."
    if status in (401, 403):
        return "the hub refuses the token. Run `hf auth login` with one that may write there, or set HF_TOKEN."
    if isinstance(error, OfflineModeIsEnabled):
        return "the hub client is in offline mode. Unset HF_HUB_OFFLINE."
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip('.')}. Check the network and try again."
