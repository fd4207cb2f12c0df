"""Two processes with gloo, in float64: the gradient of every loss is the one of a single process."""

from pathlib import Path

import pytest
import torch
from fixtures_processes import started
from safetensors.torch import load_file
from test_gradient import BATCH

from pgembed.config import Launch
from pgembed.encoders.folder import folder_spec
from pgembed.errors import TrainingError
from pgembed.training.distributed import Processes, choose_device, joined
from pgembed.training.encode import TextEncoder, distinct_texts
from pgembed.training.gradient import accumulate_gradients
from pgembed.training.mixture import trainable
from pgembed.training.model import EncoderModel, load_model
from pgembed.training.options import TrainingOptions
from pgembed.training.sharding import shard, whole

# Loss, and triplets in one process's memory. The last have fewer texts, or rows, than come out even.
CASES: dict[str, tuple[dict[str, object], int]] = {
    "in-batch": ({"loss": "in-batch"}, 6),
    "in-batch, cached": ({"loss": "in-batch", "micro_batch": 2}, 6),
    "hardest": ({"negatives": "hardest"}, 6),
    "hardest, cached": ({"negatives": "hardest", "micro_batch": 1}, 6),
    "semi-hard": ({"negatives": "semi-hard", "matryoshka": (8,)}, 6),
    "mined": ({"negatives": "mined"}, 6),
    "mined, accumulated": ({"negatives": "mined", "micro_batch": 2}, 6),
    "mined, odd": ({"negatives": "mined", "micro_batch": 1}, 5),
    "one triplet": ({"negatives": "mined"}, 1),
}

_WORKER = """
import sys
sys.path[:0] = eval(sys.argv[3])
from dataclasses import replace
from pathlib import Path
import torch
from fixtures_processes import started
from safetensors.torch import save_file
from test_distributed import CASES, gradients, prepared
from pgembed.training.distributed import joined
torch.use_deterministic_algorithms(True)
with joined("cpu", timeout_s=150) as all_alike:
    for shards in (False, True):
        among = replace(all_alike, shards=shards)
        model, encode = prepared(Path(sys.argv[1]), among)
        for name in CASES:
            found = gradients(model, encode, name, among)
            save_file(found, f"{sys.argv[2]}/{name}-{shards}-{among.rank}.safetensors")
"""


def prepared(folder: Path, among: Processes) -> tuple[EncoderModel, TextEncoder]:
    model = load_model(folder_spec(folder)).double()
    if among.shards:
        shard(model, among)
    return model, TextEncoder(model.spec, max_tokens=24)


def gradients(model: EncoderModel, encode: TextEncoder, name: str, among: Processes) -> dict[str, torch.Tensor]:
    """Return the gradients that a case gives, its loss and what else is said of the batch."""
    options, rows = CASES[name]
    model.zero_grad(set_to_none=True)
    told = TrainingOptions(**{"loss": "triplet", "margin": 0.5, **options})  # type: ignore[arg-type]
    value = accumulate_gradients(model, encode, BATCH[:rows], told, among=among)
    found = {name: whole(p.grad) for name, p in trainable(model).items() if p.grad is not None}
    spread = [-2.0 if part is None else part for part in (value.spread.mean_cosine, value.spread.deviation)]
    return {**found, "value": torch.tensor([value.loss, value.zero_share, *spread], dtype=torch.float64)}


@pytest.fixture(scope="module")
def outcomes(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what both processes got for every case, with whole and with divided weights."""
    place = tmp_path_factory.mktemp("outcomes")
    paths = repr([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    with started(_WORKER, str(tiny_model), str(place), paths) as processes:
        for process in processes:
            told = process.communicate(timeout=300)
            assert process.returncode == 0, told[1]
    return place


@pytest.mark.parametrize("shards", [False, True], ids=["whole", "divided"])
@pytest.mark.parametrize("name", CASES)
def test_every_process_has_the_gradient_of_a_single_one(
    outcomes: Path, tiny_model: Path, name: str, shards: bool
) -> None:
    expected = gradients(*prepared(tiny_model, Processes()), name, Processes())
    assert any(gradient.abs().max() > 1e-3 for key, gradient in expected.items() if key != "value")
    for rank in range(2):
        found = load_file(outcomes / f"{name}-{shards}-{rank}.safetensors")
        # a divided weight has a gradient, be it zero, where any of its layer has one
        assert expected.keys() == found.keys() or (shards and expected.keys() < found.keys())
        for key in found:
            torch.testing.assert_close(
                found[key], expected.get(key, torch.zeros_like(found[key])), rtol=1e-6, atol=1e-12, msg=key
            )


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 7, 24])
def test_every_text_is_dealt_and_the_hands_are_equal_in_number_and_alike_in_length(size: int, count: int) -> None:
    lengths = [(7 * n) % 24 for n in range(count)]
    hands = Processes(size=size).deal(lengths)
    assert len(hands) == size
    assert {place for hand in hands for place in hand} == set(range(count))
    assert {len(hand) for hand in hands} == {-(-count // size)}
    if count == 24:
        sums = [sum(lengths[place] for place in hand) for hand in hands]
        assert max(sums) - min(sums) <= 24


def test_a_text_that_was_dealt_twice_is_used_once() -> None:
    hands = Processes(size=2).deal([3, 1, 2])
    assert hands == [[1, 0], [2, 1]]


def test_alone_nothing_is_copied() -> None:
    vectors, alone = torch.ones(3, 2), Processes()
    assert alone.gather(vectors, alone.deal([1, 2, 3])) is vectors
    assert alone.add(0.1, 2.0) == [0.1, 2.0]
    assert alone.broadcast("x") == "x"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_missing_is_an_error() -> None:
    assert choose_device("auto").type == "cpu"
    with pytest.raises(TrainingError, match=r"Process 1 of this machine has no GPU: torch .* (sees none|for CPUs)"):
        choose_device("cuda", Launch(rank=1, local_rank=1, size=2))
    with pytest.raises(TrainingError, match="'tpu' is none of"):
        choose_device("tpu")


def test_weights_are_not_divided_among_one() -> None:
    with pytest.raises(TrainingError, match="there is one"), joined("cpu", shards=True):
        pass


def test_texts_of_a_batch_have_one_order(tiny_model: Path) -> None:
    # what is dealt depends on it: the processes must agree without a word
    assert distinct_texts(BATCH) == distinct_texts(BATCH[::-1])
