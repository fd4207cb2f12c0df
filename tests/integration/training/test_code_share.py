"""Code triplets mixed into the batches of docstrings: a fixed part of each, in their own order, from any step on."""

from dataclasses import replace
from itertools import islice

import psycopg
import pytest

from pgembed.errors import TrainingError
from pgembed.training.data import batch_size, batches, sampler_state, settled, snapshot, summarise
from pgembed.training.options import TrainingOptions

OPTIONS = TrainingOptions(view="made_up_triplets", batch=8, seed=5)
MIXED = replace(OPTIONS, code_share=0.25)


@pytest.fixture
def mixed(triplets: psycopg.Connection) -> psycopg.Connection:
    """The made-up triplets with five code triplets besides."""
    triplets.execute(
        "INSERT INTO pgembed.made_up_triplets SELECT ordinal + 100, 'code', 'train', language, negative, positive,"
        " 'def other(): pass' FROM pgembed.made_up_triplets WHERE ordinal < 5"
    )
    return triplets


def ordinals(conn: psycopg.Connection, options: TrainingOptions, count: int, first_step: int = 0) -> list[list[int]]:
    with snapshot(conn) as reader:
        data = summarise(reader, options)
        stream = batches(reader, options, data, first_step=first_step)
        return [[row.ordinal for row in batch] for batch in islice(stream, count)]


def test_every_batch_has_its_share_and_a_resume_goes_on_in_both(mixed: psycopg.Connection) -> None:
    found = ordinals(mixed, MIXED, 9)
    code = [[ordinal for ordinal in batch if ordinal >= 100] for batch in found]
    assert [len(batch) for batch in code] == [2] * 9
    assert [len(batch) for batch in found] == [8] * 9
    # in turn, and past the last the first again; the docstrings as in a run of six without code
    flat = [ordinal - 100 for batch in code for ordinal in batch]
    assert flat == [(flat[0] + n) % 5 for n in range(18)]
    plain = ordinals(mixed, replace(OPTIONS, batch=6), 9)
    assert [[ordinal for ordinal in batch if ordinal < 100] for batch in found] == plain
    for step in (1, 4, 7):
        assert ordinals(mixed, MIXED, 2, first_step=step) == found[step : step + 2]


def test_what_is_mixed_in_is_part_of_what_a_run_is(mixed: psycopg.Connection) -> None:
    with snapshot(mixed) as reader:
        plain, data = summarise(reader, OPTIONS), summarise(reader, MIXED)
    assert (data.triplets, data.code, batch_size(MIXED, data)) == (32, 5, 8)
    assert data.fingerprint != plain.fingerprint
    assert sampler_state(MIXED, data, 3)["code"]["of"] == 5
    assert "code" not in sampler_state(OPTIONS, plain, 3)


def test_a_share_that_cannot_be_is_refused(triplets: psycopg.Connection) -> None:
    for options in ({"code_share": 1.0}, {"code_share": 0.2, "kind": "code"}, {"code_share": 0.1, "batch": 4}):
        with pytest.raises(TrainingError, match="code_share"):
            TrainingOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"gives no triplets of .*kind code"):
        ordinals(triplets, MIXED, 1)


def test_a_quarter_is_mixed_in_where_nobody_said_how_much_and_there_is_any(
    mixed: psycopg.Connection, triplets: psycopg.Connection
) -> None:
    with snapshot(mixed) as reader:
        assert settled(reader, OPTIONS).code_share == 0.25
        assert settled(reader, replace(OPTIONS, code_share=0.0)).code_share == 0.0
        assert settled(reader, replace(OPTIONS, kind="code")).code_share == 0.0
        assert settled(reader, replace(OPTIONS, batch=2)).code_share == 0.0  # half a triplet
        assert settled(reader, MIXED) is MIXED


def test_docstrings_alone_are_trained_on_where_there_is_no_code(triplets: psycopg.Connection) -> None:
    with snapshot(triplets) as reader:
        assert settled(reader, OPTIONS).code_share == 0.0
