from pathlib import Path

import pytest

from pgembed.errors import TrainingError
from pgembed.training.options import TrainingOptions
from pgembed.training.precision import resolve_precision


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0}, {"batch": -1}, {"margin": 0.0}, {"learning_rate": 0.0}, {"interpolate": 0.0},
        {"interpolate": 1.1}, {"warmup_share": 1.0}, {"max_tokens": 2}, {"loss": "hinge"}, {"distance": "dot"},
        {"precision": "fp16"},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=next(iter(values)) + "|" + str(next(iter(values.values())))):
        TrainingOptions(**values)  # type: ignore[arg-type]


def test_precision_follows_the_processor_unless_told(tmp_path: Path) -> None:
    for flags, expected in (("avx512f avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx512f avx2", "fp32")):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags} rdpid\n")
        assert resolve_precision("auto", tmp_path / "cpuinfo") == expected
        assert resolve_precision("fp32", tmp_path / "cpuinfo") == "fp32"
    assert resolve_precision("auto", tmp_path / "absent") == "fp32"
