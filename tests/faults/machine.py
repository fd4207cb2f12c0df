"""The machine as the processes of a trial see it: its clock and its disk, by a library that is preloaded into them."""

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("machine.c")


class Machine:
    """Compiled once; without a C compiler nothing is changed, and `works` says so."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "machine.so"
        self._told = folder / "machine"
        self._told.write_bytes(struct.pack("=qq", 0, 0))
        compiler = shutil.which("cc") or shutil.which("gcc")
        self.works = compiler is not None
        if compiler is not None:
            subprocess.run(
                [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"], check=True
            )

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to see it."""
        if not self.works:
            return {}
        return {"LD_PRELOAD": str(self._library), "PGEMBED_TEST_MACHINE": str(self._told)}

    def tell(self, *, clock_s: int = 0, is_full: bool = False) -> None:
        """Set by how much the clock is off, and whether the disk is full; all processes see it at once."""
        with self._told.open("r+b") as file:
            file.write(struct.pack("=qq", clock_s, is_full))
