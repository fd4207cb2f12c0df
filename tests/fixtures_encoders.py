"""Encoders for tests: a tiny random one for nearly everything, and the real MiniLM where its numbers count."""

import json
import shutil
from pathlib import Path

import pytest

TINY_WIDTH = 32


def make_tiny_model(folder: Path, *, seed: int = 1, layers: int = 2, hidden_dropout: float = 0.1) -> Path:
    """Save a random BERT of 32 dimensions, with MiniLM's tokenizer, in sentence-transformers' layout."""
    import torch
    from transformers import BertConfig, BertModel

    from pgembed.encoders.presets import preset
    from pgembed.encoders.weights import locate

    config = BertConfig(
        vocab_size=30522,
        hidden_size=TINY_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=hidden_dropout,
        attention_probs_dropout_prob=hidden_dropout,
        # wider than BERT's 0.02, so that different texts get clearly different vectors
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(config)
    model.save_pretrained(folder)
    minilm = locate(preset("minilm").towers[0])
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copyfile(minilm / name, folder / name)
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for n, (path, kind) in enumerate(
                    [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
                )
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": TINY_WIDTH, "pooling_mode_mean_tokens": True})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random BERT as it would come from elsewhere: safetensors, tokenizer, modules.json."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_encoder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model exported: an artefact folder. It embeds some thousand short texts a second."""
    from pgembed.training.export import export_encoder

    return export_encoder(tiny_model, tmp_path_factory.mktemp("artefacts") / "tiny").path


@pytest.fixture(scope="session")
def minilm_artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real all-MiniLM-L6-v2 exported: an artefact folder. Mark tests that use it `real_weights`."""
    from pgembed.training.export import export_encoder

    return export_encoder("minilm", tmp_path_factory.mktemp("artefacts") / "minilm").path
