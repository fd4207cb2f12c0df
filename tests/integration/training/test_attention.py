"""The fused attention that training takes against the eager one that the exporter follows: vectors and gradients."""

from pathlib import Path

import pytest
import torch

from pgembed.encoders.folder import folder_spec
from pgembed.training.loop import prepare_model
from pgembed.training.model import EncoderModel, load_model
from pgembed.training.options import TrainingOptions


def vectors_and_gradients(model: EncoderModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Of three texts, two of them padded, through a sum that gives each dimension its own weight."""
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 9, [1] * 4 + [0] * 5, [1] * 7 + [0] * 2])
    roles = [torch.tensor([0, 1, 1])] if model.spec.takes_role else []
    vectors = model(ids * mask, mask, *roles)
    (vectors * torch.linspace(-1, 1, vectors.shape[1])).sum().backward()
    return vectors.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("fixture", ["tiny_model", "tiny_qodo", "tiny_jina"])
def test_fused_attention_is_eager_attention_but_for_rounding(fixture: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(fixture)
    spec = folder_spec(folder)
    fused = prepare_model(spec, [folder], TrainingOptions())
    eager = load_model(spec, [folder])
    kinds = [
        {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")}
        for model in (fused, eager)
    ]
    assert kinds == [{"sdpa"}, {"eager"}]
    (fused_vectors, fused_gradients), (vectors, gradients) = map(vectors_and_gradients, (fused, eager))
    torch.testing.assert_close(fused_vectors, vectors, atol=1e-6, rtol=0)
    assert fused_gradients.keys() == gradients.keys() != set()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fused_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
