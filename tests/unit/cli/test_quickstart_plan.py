"""Which files a quickstart takes, and how large it is made."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pgembed.cli.quickstart.plan import DEFAULT_LIMIT_S, PLANS, choose_files, estimate_seconds, fit

FILES = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 1000), min_size=1, max_size=40)


@given(FILES, st.integers(1, 20_000), st.randoms())
def test_a_sample_keeps_its_limit_and_is_the_same_whatever_the_order(files: dict[str, int], limit: int, random) -> None:  # type: ignore[no-untyped-def]
    held_out = {path for path in files if len(path) % 3 == 0}
    chosen = choose_files(files, held_out, limit)
    shuffled = list(files.items())
    random.shuffle(shuffled)
    assert choose_files(dict(shuffled), held_out, limit) == chosen
    assert chosen <= set(files)
    # one file of each kind is always taken, however large
    largest = max(files.values())
    assert sum(files[path] for path in chosen) <= limit + 2 * largest
    assert chosen & held_out or not held_out
    assert chosen - held_out or not set(files) - held_out


@given(FILES, st.integers(1, 20_000))
def test_a_sample_is_full_when_nothing_left_would_fit(files: dict[str, int], limit: int) -> None:
    chosen = choose_files(files, set(), limit)
    rest = limit - sum(files[path] for path in chosen)
    assert all(files[path] > rest for path in set(files) - chosen)


def test_without_a_limit_everything_is_taken() -> None:
    assert choose_files({"a": 10**9, "b": 0}, {"a"}, None) == {"a", "b"}


def test_held_out_files_are_up_to_a_third_of_a_sample() -> None:
    files = {f"{number}.py": 10 for number in range(1000)}
    held_out = {f"{number}.py" for number in range(500)}
    chosen = choose_files(files, held_out, 3000)
    assert (len(chosen & held_out), len(chosen - held_out)) == (100, 200)


def test_a_slow_machine_gets_a_smaller_default_and_a_fast_one_all_of_it() -> None:
    plan, corpus = PLANS["default"], 12_600_000
    assert fit(plan, corpus, 190.0, bf16=True) == plan
    slow = fit(plan, corpus, 90.0, bf16=False)
    assert slow.corpus_bytes is not None
    assert plan.corpus_bytes is not None
    assert slow.corpus_bytes < plan.corpus_bytes
    assert slow.training_steps < plan.training_steps
    assert estimate_seconds(slow, corpus, 90.0, bf16=False) <= DEFAULT_LIMIT_S
    assert slow.training_steps > 0


def test_more_work_and_a_slower_machine_take_longer() -> None:
    plan = PLANS["default"]

    def estimate(plan=plan, corpus=12_600_000, gflops=190.0, bf16=True) -> float:  # type: ignore[no-untyped-def]
        return estimate_seconds(plan, corpus, gflops, bf16=bf16)

    assert estimate() < estimate(gflops=95.0)
    assert estimate() < estimate(bf16=False)
    assert estimate() < estimate(plan=replace(plan, training_steps=500))
    assert estimate(corpus=1_000_000) < estimate()
    assert estimate(PLANS["quick"]) < estimate() < estimate(PLANS["thorough"])
