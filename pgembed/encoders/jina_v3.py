"""What jina-embeddings-v3 is by its configuration, in either of the layouts that it is published in.

flash   jinaai/jina-embeddings-v3: config.json names XLMRobertaLoRA of jinaai/xlm-roberta-flash-implementation, and the
        task adapters stand in the weights' own file
native  jinaai/jina-embeddings-v3-hf: model_type jina_embeddings_v3, each task adapter a folder in PEFT's format

Sources: the repositories' config.json; modeling_lora.py of the flash implementation; transformers' pull request 44251.
"""

from typing import Any

TASKS = ("retrieval.query", "retrieval.passage", "separation", "classification", "text-matching")
"""The adapters in the order of the flash layout, where config.json does not list them (`lora_adaptations`)."""

PROMPTS = {
    "retrieval.query": "Represent the query for retrieving evidence documents: ",
    "retrieval.passage": "Represent the document for retrieval: ",
}
"""`task_instructions` of the published config.json, for a folder that does not carry them."""

MATRYOSHKA = (32, 64, 128, 256, 512, 768, 1024)
"""`matryoshka_dimensions` of the published config.json; the native one need not list them."""

MAX_TOKENS = 8192
"""Published length; 8,194 positions are XLM-RoBERTa's count."""


def is_jina_v3(config: dict[str, Any]) -> bool:
    """Tell whether config.json describes jina-embeddings-v3, in either layout."""
    return config.get("model_type") == "jina_embeddings_v3" or is_flash(config)


def is_flash(config: dict[str, Any]) -> bool:
    """Tell whether it is the layout of the flash implementation."""
    return "XLMRobertaLoRA" in (config.get("architectures") or [])
