import inspect
from unittest.mock import Mock, create_autospec

import huggingface_hub
import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from made_vectors import quick

from weightsteer.errors import WeightsteerError
from weightsteer.export import export_peft, hub


@pytest.fixture
def api(monkeypatch):
    """Stands in for the client, with the signatures of the real one: a call the client would refuse fails."""
    stand_in = create_autospec(HfApi, instance=True)
    stand_in.repo_info.return_value.private = True
    stand_in.upload_folder.return_value.repo_url = "https://huggingface.co/me/honesty"
    monkeypatch.setattr(hub, "HfApi", lambda: stand_in)
    return stand_in


def refusal(status):
    return HfHubHTTPError("Forbidden", response=Mock(status_code=status, headers={}))


def test_a_finished_folder_goes_up_whole(tmp_path, api):
    """What is uploaded must be the proved folder, after it was finished, into a repository that was asked for."""
    model, v = quick()

    def upload(*, folder_path, **_):
        assert sorted(path.name for path in folder_path.iterdir()) == [
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "proof.json",
            "weightsteer.json",
        ]
        return api.upload_folder.return_value

    api.upload_folder.side_effect = upload
    report = export_peft(v, tmp_path / "exported", model=model, push="me/honesty", private=True)
    assert report.url == "https://huggingface.co/me/honesty"
    assert report.url in str(report)
    assert api.create_repo.call_args.args == ("me/honesty",)
    assert api.create_repo.call_args.kwargs == {"private": True, "repo_type": "model", "exist_ok": True}
    assert api.upload_folder.call_args.kwargs["repo_id"] == "me/honesty"
    card = ModelCard.load(report.folder / "README.md")
    assert 'PeftModel.from_pretrained(model, "me/honesty")' in card.text
    assert 'WeightVector.from_branch(snapshot_download("me/honesty"), model)' in card.text


def test_the_calls_are_those_of_the_real_client():
    """The stand-in would be worth nothing if the client's own methods had other parameters."""
    for method, given in (
        (HfApi.create_repo, {"repo_id": "a/b", "private": None, "repo_type": "model", "exist_ok": True}),
        (HfApi.repo_info, {"repo_id": "a/b", "repo_type": "model"}),
        (HfApi.upload_folder, {"repo_id": "a/b", "folder_path": "x", "repo_type": "model", "commit_message": "m"}),
        (HfApi.whoami, {}),
    ):
        inspect.signature(method).bind(None, **given)
    assert {"private", "id"} <= set(huggingface_hub.ModelInfo.__annotations__)
    assert "repo_url" in huggingface_hub.CommitInfo.__annotations__


def test_offline_is_said_before_any_work(tmp_path, monkeypatch):
    """The real client, in its offline mode: minutes of export for nothing would be worse than an early refusal."""
    _, v = quick()
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    with pytest.raises(WeightsteerError, match=r"me/honesty.*offline mode.*HF_HUB_OFFLINE"):
        export_peft(v, tmp_path / "exported", push="me/honesty")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("name", ["a/b/c", "no spaces", "-x"])
def test_impossible_names_are_refused(tmp_path, name):
    """The hub would refuse them after the upload began."""
    _, v = quick()
    with pytest.raises(WeightsteerError, match="no name of a hub repository"):
        export_peft(v, tmp_path / "exported", push=name)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LocalTokenNotFoundError("Token is required"), "no hub token here.*hf auth login"),
        (refusal(401), "refuses the token.*HF_TOKEN"),
        (refusal(500), "Forbidden.*try again"),
        (ConnectionError("Connection refused"), "Connection refused.*network"),
    ],
)
def test_a_token_that_does_not_work(tmp_path, api, error, said):
    """Each cause needs another remedy."""
    _, v = quick()
    api.whoami.side_effect = error
    with pytest.raises(WeightsteerError, match=said):
        export_peft(v, tmp_path / "exported", push="me/honesty")
    assert not (tmp_path / "exported").exists()


def test_a_failing_upload_keeps_the_folder(tmp_path, api):
    """The export was proved; only its way up failed, and that can be repeated by hand."""
    _, v = quick()
    api.upload_folder.side_effect = refusal(403)
    with pytest.raises(WeightsteerError, match=r"refuses the token.*complete in .*exported.*hf upload me/honesty"):
        export_peft(v, tmp_path / "exported", push="me/honesty")
    assert (tmp_path / "exported" / "adapter_model.safetensors").is_file()


def test_private_means_private(tmp_path, api):
    """The hub keeps an existing repository public whatever is asked for: then nothing may go there."""
    _, v = quick()
    api.repo_info.return_value.private = False
    with pytest.raises(WeightsteerError, match=r"is public.*nothing was uploaded.*exported"):
        export_peft(v, tmp_path / "exported", push="me/honesty", private=True)
    api.upload_folder.assert_not_called()
    export_peft(v, tmp_path / "exported", push="me/honesty")
    assert api.create_repo.call_args.kwargs["private"] is None
    api.upload_folder.assert_called_once()
