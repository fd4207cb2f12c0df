"""Distributions that register something with pgembed, as an installer leaves them on a path."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pgembed.corpus import chunkers

Register = Callable[..., None]


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """A function that puts a distribution, its modules and its entry points onto the path of this process."""
    monkeypatch.setattr(chunkers, "third_party", chunkers.third_party.__wrapped__)  # what was found before is not asked

    def put(distribution: str, group: str, entries: dict[str, str], version: str = "1.0", **modules: str) -> None:
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = [f"{name} = {value}\n" for name, value in entries.items()]
        (info / "entry_points.txt").write_text(f"[{group}]\n{''.join(lines)}")
        for name, source in modules.items():
            (site / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(site)

    return put
