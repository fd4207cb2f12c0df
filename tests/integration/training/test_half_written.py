"""An export that is killed leaves nothing for long, and two to one place do not get into each other's way."""

import subprocess
import sys
import threading
from pathlib import Path

from pgembed.encoders.half_written import begin_folder, left_behind
from pgembed.training.export import export_encoder, replace_folder


def _killed(place: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from pgembed.encoders.half_written import begin_folder;"
        "(begin_folder(Path(sys.argv[1])) / 'model.onnx').touch(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(place)], check=False).returncode == -9


def test_the_next_export_removes_what_a_killed_one_left_there(tiny_model: Path, tmp_path: Path) -> None:
    _killed(tmp_path / "out")
    _killed(tmp_path / "out-of-another")
    mine = begin_folder(tmp_path / "out")
    foreign = tmp_path / ".out-elsewhere-1-abcdefgh"  # of another host
    foreign.mkdir()
    assert len(left_behind(tmp_path)) == 2
    (other,) = left_behind(tmp_path, "out-of-another")
    export_encoder(tiny_model, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", mine.name, foreign.name, other.name}
    # with an intact one in place too: killed between the two
    _killed(tmp_path / "out")
    export_encoder(tiny_model, tmp_path / "out")
    assert left_behind(tmp_path) == [other]


def test_many_at_once_put_their_folders_in_one_place(tmp_path: Path) -> None:
    place = tmp_path / "place"
    failures: list[BaseException] = []

    def put(number: int) -> None:
        try:
            for _ in range(50):
                new = begin_folder(place)
                (new / "whose").write_text(str(number))
                replace_folder(new, place)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (place / "whose").read_text() in "012345"
