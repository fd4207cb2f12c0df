"""Gradients in parts, by adapters and by layers computed again: the same as in one piece."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pgembed.encoders.folder import folder_spec
from pgembed.training.data import Triplet
from pgembed.training.encode import TextEncoder, distinct_texts
from pgembed.training.gradcheck import compare_gradients
from pgembed.training.gradient import accumulate_gradients
from pgembed.training.lora import add_adapters, merge_adapters
from pgembed.training.mixture import copy_weights, mix, mixed, trainable
from pgembed.training.model import EncoderModel, load_model
from pgembed.training.options import TrainingOptions
from pgembed.training.recompute import recompute_layers

BATCH = [
    Triplet(n, "docstring", f"{verb.title()} the {noun} and say so.", f"def {verb}({noun}): return {noun}", other)
    for n, (verb, noun, other) in enumerate(
        [
            ("read", "file", "def write(path, text): open(path, 'w').write(text)"),
            ("sort", "list", "def add(a, b): return a + b"),
            ("close", "socket", "def sort(list): return list"),  # also another row's positive
            ("send", "header", "def f(): pass"),
            ("count", "words in a long text of many words, one by one and with great care", "def g(x): return x"),
            ("merge", "tree", "def add(a, b): return a + b"),  # also another row's negative
        ]
    )
]


@pytest.fixture
def model(tiny_model: Path) -> EncoderModel:
    return load_model(folder_spec(tiny_model)).double()


@pytest.fixture
def encode(tiny_model: Path) -> TextEncoder:
    return TextEncoder(folder_spec(tiny_model), max_tokens=24)


def _options(**changed: object) -> TrainingOptions:
    return TrainingOptions(**{"loss": "triplet", "margin": 0.5, **changed})  # type: ignore[arg-type]


def gradients(model: EncoderModel, encode: TextEncoder, **options: object) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    value = accumulate_gradients(model, encode, BATCH, _options(**options))
    return value.loss, {name: p.grad.clone() for name, p in trainable(model).items() if p.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], *, rtol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=rtol, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "in-batch"},
        {"negatives": "hardest"},
        {"negatives": "semi-hard", "matryoshka": (8,)},
        {"negatives": "mined"},
        {"negatives": "mined", "distance": "euclidean"},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1, 4])
def test_a_micro_batch_gives_the_gradient_of_the_whole(
    model: EncoderModel, encode: TextEncoder, options: dict[str, object], size: int
) -> None:
    calls = []
    model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    loss, expected = gradients(model, encode, **options)
    calls.clear()
    in_parts, found = gradients(model, encode, **options, micro_batch=size)
    assert in_parts == pytest.approx(loss, rel=1e-12)
    assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())
    assert_same(found, expected)
    # what would fill the memory is the graph: that of many texts at a time, if there were fewer calls
    assert calls.count(True) >= 6 / size
    assert (calls.count(False) > 0) == (options.get("negatives") != "mined")


def test_a_loss_of_zero_leaves_gradients_of_zero_in_parts_too(model: EncoderModel, encode: TextEncoder) -> None:
    # Adam goes on by its moments where a gradient is zero, and stands still where there is none
    texts = distinct_texts(BATCH)
    with torch.no_grad():
        vectors = dict(zip(texts, encode(model, texts), strict=True))

    def lead(row: Triplet) -> float:
        right, wrong = vectors["passage", row.positive], vectors["passage", row.negative]
        return float(vectors["query", row.anchor] @ (right - wrong))

    easy = [row for row in BATCH if lead(row) > 0.01]
    assert len(easy) >= 2
    kept = []
    for size in (None, 1):
        model.zero_grad(set_to_none=True)
        options = TrainingOptions(loss="triplet", margin=0.001, negatives="semi-hard", micro_batch=size)
        value = accumulate_gradients(model, encode, easy, options)
        kept.append((value.loss, {name for name, p in model.named_parameters() if p.grad is not None}))
    assert kept[0] == kept[1]


def test_layers_that_are_computed_again_give_the_same_bits(model: EncoderModel, encode: TextEncoder) -> None:
    runs = []
    model.towers[0].transformer.encoder.layer[0].intermediate.register_forward_hook(lambda *_: runs.append(1))
    _, expected = gradients(model, encode)
    once = len(runs)
    recompute_layers(model)
    runs.clear()
    _, found = gradients(model, encode)
    assert len(runs) == 2 * once
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(module.training for module in model.modules() if isinstance(module, torch.nn.Dropout))


def test_merged_adapters_give_the_vectors_of_the_adapted_model(model: EncoderModel, encode: TextEncoder) -> None:
    texts = distinct_texts(BATCH)
    plain = dict(model.state_dict())
    before = encode(model, texts)
    add_adapters(model, 3, seed=0)
    names = set(trainable(model))
    assert names
    assert all(".lora_" in name for name in names)
    torch.testing.assert_close(encode(model, texts), before)  # B starts at zero
    base = copy_weights(model)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    full = {name: p.detach().clone() for name, p in model.named_parameters()}
    mix(model, base, 0.25)
    adapted = encode(model, texts)
    merge_adapters(model)
    assert model.state_dict().keys() == plain.keys()
    torch.testing.assert_close(encode(model, texts), adapted, rtol=1e-9, atol=1e-9)
    assert (adapted - before).abs().max() > 0.01
    # a quarter of the whole update: W + ¼ · (α / r) · B·A, with α = 2 r
    layer = "towers.0.transformer.encoder.layer.0.attention.self.query"
    update = 2 * full[f"{layer}.lora_B.default.weight"] @ full[f"{layer}.lora_A.default.weight"]
    torch.testing.assert_close(model.state_dict()[f"{layer}.weight"], full[f"{layer}.base_layer.weight"] + update / 4)


def test_the_same_seed_gives_the_same_adapters(tiny_model: Path) -> None:
    starts = []
    for seed in (0, 0, 1):
        model = load_model(folder_spec(tiny_model))
        torch.manual_seed(len(starts))
        add_adapters(model, 2, seed=seed)
        starts.append(torch.cat([p.flatten() for p in trainable(model).values()]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_a_mixture_for_a_while_leaves_no_trace(model: EncoderModel) -> None:
    base = copy_weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    trained = copy_weights(model)
    with mixed(model, base, 0.3):
        for name, value in copy_weights(model).items():
            torch.testing.assert_close(value, 0.7 * base[name] + 0.3 * trained[name])
    assert all(torch.equal(value, trained[name]) for name, value in copy_weights(model).items())


@pytest.mark.parametrize("options", [{}, {"loss": "in-batch", "micro_batch": 2, "matryoshka": (8,)}], ids=str)
def test_the_check_finds_right_gradients_right(
    model: EncoderModel, encode: TextEncoder, options: dict[str, object]
) -> None:
    told = _options(**options)
    report = compare_gradients(model, encode, BATCH, told, entries=10)
    assert report.passed
    assert len(report.compared) == 11
    assert all(abs(one.autograd) > 0 for one in report.compared)


class Wrong(torch.autograd.Function):
    """The identity, with a gradient that is off by one part in a thousand."""

    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        return gradient * 1.001


def test_the_check_catches_a_wrong_gradient(model: EncoderModel, encode: TextEncoder) -> None:
    layer = model.towers[0].transformer.encoder.layer[1].output.LayerNorm
    layer.register_forward_hook(lambda _module, _inputs, output: Wrong.apply(output))
    report = compare_gradients(model, encode, BATCH, _options(), entries=10)
    assert not report.passed
    # before that layer all are wrong by as much
    off = [one.relative_error for one in report.compared if ".layer.0." in one.parameter]
    assert off == pytest.approx([1e-3] * len(off), rel=0.05)
    assert off


def test_the_check_catches_a_gradient_that_is_missing(model: EncoderModel, encode: TextEncoder) -> None:
    layer = model.towers[0].transformer.encoder.layer[1].attention.output.dense
    layer.register_forward_hook(lambda _module, _inputs, output: output.detach())
    report = compare_gradients(model, encode, BATCH, _options(), entries=4)
    assert next(one for one in report.compared if one.index is None).relative_error > 0.01
    assert not report.passed
