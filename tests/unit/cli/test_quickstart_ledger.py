"""What a quickstart remembers of the runs before it."""

from pathlib import Path

import pytest

from pgembed.cli.quickstart.ledger import Ledger
from pgembed.cli.quickstart.plan import PLANS


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.json"


def test_a_step_is_read_back_as_it_was_written(place: Path) -> None:
    ledger = Ledger(place, PLANS["quick"])
    with ledger.step("ingest", "chunks") as step:
        step.amount, step.note = 12, "twelve"
    again = Ledger.open(place)
    assert again.plan == PLANS["quick"]
    assert again.steps == ledger.steps
    assert again.finished == ["ingest"]


def test_work_found_done_keeps_the_time_it_took(place: Path) -> None:
    ledger = Ledger(place)
    with ledger.step("train", "triplets") as step:
        step.amount, step.rate = 100, 7.0
    ledger.steps["train"].seconds = 50.0
    with ledger.step("train", "triplets") as step:
        step.skipped, step.note = True, "as before"
    found = ledger.steps["train"]
    assert (found.seconds, found.amount, found.rate, found.note, found.skipped) == (50.0, 100, 7.0, "as before", True)


def test_the_time_of_an_interrupted_try_counts(place: Path) -> None:
    ledger = Ledger(place)
    with pytest.raises(KeyboardInterrupt), ledger.step("train", "triplets"):
        raise KeyboardInterrupt
    assert ledger.finished == []
    ledger.steps["train"].seconds = 30.0
    with ledger.step("train", "triplets") as step:
        step.amount = 10
    assert ledger.finished == ["train"]
    assert 30.0 <= ledger.steps["train"].seconds < 40.0


def test_work_done_anew_counts_by_itself(place: Path) -> None:
    ledger = Ledger(place)
    with ledger.step("ingest", "chunks") as step:
        step.amount = 10
    ledger.steps["ingest"].seconds = 1000.0
    with ledger.step("ingest", "chunks") as step:
        step.amount = 3
    assert ledger.steps["ingest"].amount == 3
    assert ledger.steps["ingest"].seconds < 1000.0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"steps": 1, "plan": 2}', '{"plan": {"x": 1}, "steps": {}}'])
def test_a_broken_ledger_is_an_empty_one(place: Path, text: str) -> None:
    place.parent.mkdir()
    place.write_text(text)
    assert Ledger.open(place) == Ledger(place)
