from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from pgembed.encoders.hub import PATTERNS, hub_folder, parse_place
from pgembed.encoders.presets import preset
from pgembed.encoders.weights import locate, make_ready
from pgembed.errors import EncoderError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("revision", ["", "@", "@main", "@0123abc", f"@{COMMIT.upper()}", f"@{COMMIT}0", "@v1.0"])
def test_weights_that_are_not_pinned_to_a_commit_are_refused(revision: str) -> None:
    with pytest.raises(EncoderError, match="is not pinned") as caught:
        parse_place(f"owner/model{revision}")
    assert "40 hexadecimal digits" in str(caught.value)
    assert parse_place(f"owner/model@{COMMIT}") == ("owner/model", COMMIT)


@pytest.mark.parametrize("place", [f"model@{COMMIT}", f"../model@{COMMIT}/x", f"a/b/c@{COMMIT}", f"@{COMMIT}"])
def test_what_names_no_repository_is_refused(place: str) -> None:
    with pytest.raises(EncoderError, match=r"not (pinned|name a repository)"):
        parse_place(place)


def test_looking_for_weights_never_asks_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Listing encoders must not begin to fetch gigabytes."""
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    with pytest.raises(EncoderError, match=r"Qodo/Qodo-Embed-1-1\.5B at 84bbef079b32 is not on this machine") as caught:
        locate(preset("qodo").towers[0])
    assert "hf download Qodo/Qodo-Embed-1-1.5B --revision 84bbef079b32e8823ec226d4e9e92902706b0eb6" in str(caught.value)


def test_without_a_network_the_error_says_how_to_bring_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="cannot be fetched") as caught:
        hub_folder(f"owner/model@{COMMIT}", download=True)
    assert "--local-dir" in str(caught.value)


def test_only_data_of_the_pinned_commit_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert hub_folder(f"owner/model@{COMMIT}", download=True) == tmp_path
    assert (asked["repository"], asked["revision"]) == ("owner/model", COMMIT)
    published = [
        "config.json", "model-00001-of-00002.safetensors", "1_Pooling/config.json", "tokenizer.json",
        "retrieval_query/adapter_config.json", "retrieval_query/adapter_model.safetensors",
        "modeling_qwen.py", "pytorch_model.bin",
        "onnx/config.json", "onnx/model.onnx", "custom_st.py", "training_args.pt", "README.md",
    ]  # fmt: skip
    from huggingface_hub.utils import filter_repo_objects

    kept = list(filter_repo_objects(published, allow_patterns=PATTERNS, ignore_patterns=asked["ignore_patterns"]))
    assert kept == published[:6]


def test_a_licence_is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Listener:
        def say(self, text: str) -> None:
            said.append(text)

    def fetch(place: str, *, download: bool) -> Path:
        said.append(f"fetch {place}")
        raise EncoderError("no network")

    monkeypatch.setattr("pgembed.encoders.weights.hub_folder", fetch)
    with pytest.raises(EncoderError, match="no network"):
        make_ready(preset("qodo-jina"), Listener())  # type: ignore[arg-type]
    jina = next(line for line in said if "jinaai/jina-embeddings-v3" in line)
    assert "CC-BY-NC-4.0: no commercial use" in jina
    assert said.index(jina) < next(n for n, line in enumerate(said) if line.startswith("fetch"))
