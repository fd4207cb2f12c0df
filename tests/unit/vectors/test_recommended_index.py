"""Which index is recommended, and which efforts are tried."""

import pytest

from pgembed.vectors.comparing import Measured, Point, efforts_for, recommend


def _measured(method: str, size_mb: int, *points: tuple[int, float, float]) -> Measured:
    return Measured(method, "effort", None, 1.0, size_mb * 2**20, [Point(e, r, ms, 2 * ms) for e, r, ms in points])


def test_the_least_median_that_reaches_the_target_wins() -> None:
    slow = _measured("ivfflat", 10, (1, 0.5, 0.1), (8, 0.96, 4.0), (16, 0.99, 8.0))
    fast = _measured("hnsw", 90, (10, 0.94, 1.0), (20, 0.97, 2.0))
    found = recommend([slow, fast], 0.95)
    assert found is not None
    assert (found.method, found.point.effort) == ("hnsw", 20)
    exact = recommend([slow, fast], 0.98)
    assert exact is not None
    assert (exact.method, exact.point.effort) == ("ivfflat", 16)
    assert recommend([slow, fast], 0.995) is None
    assert recommend([], 0.5) is None


@pytest.mark.parametrize(("binary_ms", "method"), [(2.1, "binary"), (1.9, "binary"), (2.5, "hnsw")])
def test_of_equal_medians_the_smaller_index_wins(binary_ms: float, method: str) -> None:
    found = recommend([_measured("hnsw", 165, (20, 0.97, 2.0)), _measured("binary", 13, (80, 0.96, binary_ms))], 0.95)
    assert found is not None
    assert found.method == method


def test_efforts_double_up_to_the_most() -> None:
    assert efforts_for("ivfflat", 88, 10) == [1, 2, 4, 8, 16, 32, 64, 88]
    assert efforts_for("ivfflat", 1, 10) == [1]
    assert efforts_for("hnsw", 1, 10) == [10, 20, 40, 80, 160, 320, 640, 1000]
    assert efforts_for("binary", 1, 25)[0] == 25
