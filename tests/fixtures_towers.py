"""Tiny random models in the layouts, and with the quirks, of the encoders that production uses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

# Texts that the tiny tokenizers below are made from.
_SAMPLE = [
    "def add(a, b):\n    return a + b\n",
    "return the sum of two numbers",
    "for (int i = 0; i < n; ++i) { total += values[i]; }",
    "open the file and read every line of it",
    "class Node:\n    def __init__(self, value):\n        self.value = value\n",
]

SHARD = "30KB"
"""So that weights come in several files, as the large models' do."""

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2's tokenizer.json cuts a text into words."""

TINY_QWEN = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 512, "rope_theta": 1e6,
}  # fmt: skip


def write_json(path: Path, values: Any) -> None:
    """Write a file of JSON, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def write_modules(folder: Path, pooling: str, width: int, *kinds: str) -> None:
    """Write what sentence-transformers' layout has beside a model: modules.json and the pooling's folder."""
    names = [f"{n}_{kind.rpartition('.')[2]}" if n else "" for n, kind in enumerate(kinds)]
    modules = [{"idx": n, "name": str(n), "path": names[n], "type": kind} for n, kind in enumerate(kinds)]
    write_json(folder / "modules.json", modules)
    flags = {f"pooling_mode_{mode}": mode == pooling for mode in ("cls_token", "mean_tokens", "lasttoken")}
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **flags, "include_prompt": True}
    )


def make_tiny_qodo(folder: Path, *, seed: int = 1) -> Path:
    """Save a random Qwen2 in the layout of Qodo-Embed-1-1.5B.

    Its quirk is kept: tokenizer.json ends a text with nothing; `add_eos_token` and code that is never run would.
    """
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import Qwen2Config, Qwen2Model

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SAMPLE, trainer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = Qwen2Config(vocab_size=tokenizer.get_vocab_size(), initializer_range=0.3, **TINY_QWEN)
        Qwen2Model(config).save_pretrained(folder, max_shard_size=SHARD)
    tokenizer.save(str(folder / "tokenizer.json"))
    saved = json.loads((folder / "config.json").read_text())
    code = {"AutoModel": "modeling_qwen.Qwen2Model", "AutoModelForCausalLM": "modeling_qwen.Qwen2ForCausalLM"}
    write_json(folder / "config.json", {**saved, "auto_map": code})
    (folder / "modeling_qwen.py").write_text("raise SystemExit('code of a model repository was run')\n")
    (folder / "tokenization_qwen.py").write_text("raise SystemExit('code of a model repository was run')\n")
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_eos_token": True, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "padding_side": "left",
            "model_max_length": 512, "tokenizer_class": "Qwen2Tokenizer",
            "auto_map": {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]},
        },
    )  # fmt: skip
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": None})
    kinds = [f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling")]
    write_modules(folder, "lasttoken", TINY_QWEN["hidden_size"], *kinds)
    return folder


JINA_TASKS = ["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"]
JINA_WIDTH, JINA_LAYERS, JINA_HEADS, JINA_RANK = 32, 2, 4, 3
JINA_ALPHA = 1
JINA_ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "word_embeddings", "token_type_embeddings"]
JINA_PROMPTS = {
    "retrieval.query": "Represent the query for retrieving evidence documents: ",
    "retrieval.passage": "Represent the document for retrieval: ",
}


def _jina_tokenizer(folder: Path) -> int:
    """Save a tiny tokenizer that puts XLM-RoBERTa's special tokens around a text; return its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    unknown = "<unk>"
    special = ["<s>", "<pad>", "</s>", unknown]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token=unknown, show_progress=False)
    tokenizer.train_from_iterator([*_SAMPLE, *JINA_PROMPTS.values()], trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"model_max_length": 8194, "pad_token": "<pad>"})
    return int(tokenizer.get_vocab_size())


def make_tiny_jina(folder: Path, *, seed: int = 1) -> Path:
    """Save random weights in the layout, and under the names, of jinaai/jina-embeddings-v3.

    Written from the description of that layout alone: no class of transformers has a part in it.
    """
    import torch
    from safetensors.torch import save_file

    words = _jina_tokenizer(folder)
    width, wide, tasks, rank = JINA_WIDTH, 2 * JINA_WIDTH, len(JINA_TASKS), JINA_RANK
    make = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}

    def random(*shape: int, scale: float = 0.3) -> torch.Tensor:
        return torch.randn(shape, generator=make) * scale

    def linear(name: str, outputs: int, inputs: int) -> None:
        tensors[f"{name}.bias"] = random(outputs)
        tensors[f"{name}.parametrizations.weight.original"] = random(outputs, inputs)
        tensors[f"{name}.parametrizations.weight.0.lora_A"] = random(tasks, rank, inputs)
        tensors[f"{name}.parametrizations.weight.0.lora_B"] = random(tasks, outputs, rank)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = 1 + random(width), random(width)

    for name, size in (("word_embeddings", words), ("token_type_embeddings", 1)):
        place = f"roberta.embeddings.{name}.parametrizations.weight"
        tensors[f"{place}.original"] = random(size, width)
        tensors[f"{place}.0.lora_A"] = random(tasks, size, rank)
        tensors[f"{place}.0.lora_B"] = random(tasks, rank, width)
    norm("roberta.emb_ln")
    for n in range(JINA_LAYERS):
        block = f"roberta.encoder.layers.{n}"
        linear(f"{block}.mixer.Wqkv", 3 * width, width)
        linear(f"{block}.mixer.out_proj", width, width)
        linear(f"{block}.mlp.fc1", wide, width)
        linear(f"{block}.mlp.fc2", width, wide)
        norm(f"{block}.norm1")
        norm(f"{block}.norm2")
    linear("roberta.pooler.dense", width, width)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    code = "jinaai/xlm-roberta-flash-implementation--"
    write_json(
        folder / "config.json",
        {
            "architectures": ["XLMRobertaLoRA"], "model_type": "xlm-roberta",
            "auto_map": {"AutoModel": f"{code}modeling_lora.XLMRobertaLoRA"},
            "vocab_size": words, "hidden_size": width, "num_hidden_layers": JINA_LAYERS,
            "num_attention_heads": JINA_HEADS, "intermediate_size": wide, "hidden_act": "gelu", "type_vocab_size": 1,
            "max_position_embeddings": 130, "layer_norm_eps": 1e-5, "position_embedding_type": "rotary",
            "rotary_emb_base": 20000.0, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
            "lora_adaptations": JINA_TASKS, "lora_alpha": JINA_ALPHA, "lora_rank": rank, "lora_dropout_p": 0.0,
            "matryoshka_dimensions": [8, 16, 32],
            "task_instructions": {task: JINA_PROMPTS.get(task, "") for task in JINA_TASKS},
        },
    )  # fmt: skip
    write_json(folder / "config_sentence_transformers.json", {"prompts": JINA_PROMPTS})
    kinds = [f"sentence_transformers.models.{kind}" for kind in ("Pooling", "Normalize")]
    write_modules(folder, "mean_tokens", width, "custom_st.Transformer", *kinds)
    return folder


def make_tiny_jina_native(folder: Path, flash: Path) -> Path:
    """Save what `flash` holds as jinaai/jina-embeddings-v3-hf does: native names, adapters in PEFT's folders."""

    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True)
    tensors = load_file(flash / "model.safetensors")
    old = json.loads((flash / "config.json").read_text())
    names = {
        "emb_ln": "embeddings.LayerNorm", "encoder.layers": "layers", "mixer.out_proj": "self_attn.o_proj",
        "norm1": "post_attention_layernorm", "norm2": "post_mlp_layernorm",
    }  # fmt: skip

    def native(name: str) -> str:
        for before, after in names.items():
            name = name.replace(before, after)
        return name.removeprefix("roberta.")

    base: dict[str, Any] = {}
    adapters: dict[str, dict[str, Any]] = {task: {} for task in JINA_TASKS[:2]}
    for name, tensor in tensors.items():
        layer, _, part = name.partition(".parametrizations.weight.")
        if "pooler" in name:
            continue
        if part in ("", "original"):
            pieces = tensor.chunk(3) if "Wqkv" in name else (tensor,)
            for letter, piece in zip("qkv", pieces, strict=False):
                whole = f"{layer}.weight" if part else name
                base[native(whole).replace("mixer.Wqkv", f"self_attn.{letter}_proj")] = piece.clone()
            continue
        kind = part.removeprefix("0.")
        for number, task in enumerate(adapters):
            own, place = tensor[number], f"base_model.model.{native(layer)}"
            if "embeddings" in layer:  # PEFT stores both factors the other way round
                adapters[task][f"{place}.lora_embedding_{kind[-1]}"] = own.T.contiguous()
                continue
            pieces = own.chunk(3) if "Wqkv" in layer and kind == "lora_B" else (own,) * 3
            letters = "qkv" if "Wqkv" in layer else "q"
            for letter, piece in zip(letters, pieces, strict=False):
                adapted = place.replace("mixer.Wqkv", f"self_attn.{letter}_proj")
                adapters[task][f"{adapted}.{kind}.weight"] = piece.clone()
    save_file(base, folder / "model.safetensors", metadata={"format": "pt"})
    for task, parts in adapters.items():
        place = folder / task.replace(".", "_")
        settings = {"peft_type": "LORA", "r": JINA_RANK, "lora_alpha": JINA_ALPHA, "bias": "none"}
        write_json(place / "adapter_config.json", {**settings, "target_modules": JINA_ADAPTED, "modules_to_save": None})
        save_file(parts, place / "adapter_model.safetensors", metadata={"format": "pt"})
    dropped = ("auto_map", "architectures", "model_type", "position_embedding_type", "rotary_emb_base")
    kept = {key: value for key, value in old.items() if key not in dropped and not key.startswith(("lora", "task"))}
    rope = {"rope_type": "default", "rope_theta": 20000.0}
    native_config = {**kept, "model_type": "jina_embeddings_v3", "architectures": ["JinaEmbeddingsV3Model"]}
    write_json(folder / "config.json", {**native_config, "rope_parameters": rope})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(flash / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny_qodo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random model in the layout of Qodo-Embed-1-1.5B."""
    return make_tiny_qodo(tmp_path_factory.mktemp("qodo") / "qodo")


@pytest.fixture(scope="session")
def tiny_jina(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random model in the layout of jinaai/jina-embeddings-v3."""
    return make_tiny_jina(tmp_path_factory.mktemp("jina") / "jina")


@pytest.fixture(scope="session")
def tiny_jina_native(tiny_jina: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in the layout of jinaai/jina-embeddings-v3-hf."""
    return make_tiny_jina_native(tmp_path_factory.mktemp("native") / "jina", tiny_jina)
