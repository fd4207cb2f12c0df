"""The line that installs more of this distribution names where it came from, as pip notes it in direct_url.json."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from pgembed.errors import MissingExtra
from pgembed_code import installation
from pgembed_code.installation import again_line, install_line, pip, upgrade_advice


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets the distribution have come from `origin`; nobody knows where from without one."""
    folder = tmp_path / "site-packages" / "pgembed_code-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: pgembed-code\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(installation, "pip", lambda command: f"pip {command}")

    def install(origin: dict[str, Any] | None) -> None:
        (folder / "direct_url.json").write_text("" if origin is None else json.dumps(origin))

    return install


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "my checkout"
    folder.mkdir()
    return folder


def test_a_checkout(installed: Any, checkout: Path) -> None:
    installed({"url": checkout.as_uri(), "dir_info": {"editable": True}})
    assert install_line("serve") == f"pip install -e '{checkout}[serve]'"
    assert again_line() == ""
    assert str(checkout) in upgrade_advice()


def test_a_checkout_where_one_stands(installed: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed({"url": checkout.as_uri(), "dir_info": {"editable": True}})
    monkeypatch.chdir(checkout)
    assert install_line("serve") == "pip install -e '.[serve]'"


def test_a_folder_that_was_copied(installed: Any, checkout: Path) -> None:
    installed({"url": checkout.as_uri(), "dir_info": {}})
    assert install_line("serve") == f"pip install '{checkout}[serve]'"
    assert again_line() == f"pip install --force-reinstall --no-deps '{checkout}'"


def test_a_folder_that_is_gone(installed: Any, checkout: Path) -> None:
    installed({"url": checkout.as_uri(), "dir_info": {}})
    checkout.rmdir()
    assert install_line("serve") == "pip install 'pgembed-code[serve]'"


def test_a_wheel(installed: Any, tmp_path: Path) -> None:
    wheel = tmp_path / "pgembed_code-0.1.0-py3-none-any.whl"
    wheel.touch()
    installed({"url": wheel.as_uri(), "archive_info": {}})
    assert install_line("serve") == f"pip install 'pgembed-code[serve] @ {wheel.as_uri()}'"
    assert wheel.as_uri() in upgrade_advice()
    wheel.unlink()
    assert install_line("serve") == "pip install 'pgembed-code[serve]'"


def test_a_repository(installed: Any) -> None:
    url = "https://git.example.com/pgembed.git"
    installed({"url": url, "vcs_info": {"vcs": "git", "commit_id": "abc123", "requested_revision": "main"}})
    assert install_line("serve") == f"pip install 'pgembed-code[serve] @ git+{url}@abc123'"


def test_an_index(installed: Any) -> None:
    installed(None)
    assert install_line("serve") == "pip install 'pgembed-code[serve]'"
    assert upgrade_advice().endswith("pip install --upgrade pgembed-code")


def test_pip_is_the_one_of_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert pip("install") == "pip install"
    other = tmp_path / "pip"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shlex.split(pip("install")) == [sys.executable, "-m", "pip", "install"]


def test_a_missing_extra_names_the_line() -> None:
    assert install_line("serve") in str(MissingExtra("serve", "Serving", "there is no fastapi"))
