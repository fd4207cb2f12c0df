import ctypes.util
from pathlib import Path

import pytest

from pgembed.encoders.cuda_libraries import missing_libraries


def test_libraries_that_a_file_names_and_that_are_not_there(tmp_path: Path) -> None:
    """A file with a string table like an ELF file's; libc is none of CUDA's."""
    names = [
        "libcublasLt.so.99",
        "libcudart.so.99",
        "libc.so.6",
        "libcudnn.so.98",
        "libcudnn.so.98",
        "libnvrtc.so.97.1",
    ]
    provider = tmp_path / "libonnxruntime_providers_cuda.so"
    provider.write_bytes(b"\x7fELF\0" + b"\0".join(map(str.encode, names)) + b"\0 libcufft.so.11 in a message\0")
    found = missing_libraries(provider)
    assert [name for name in found if name != "libcuda.so.1"] == [
        "libcublasLt.so.99",
        "libcudart.so.99",
        "libcudnn.so.98",
        "libnvrtc.so.97.1",
    ]


def test_a_library_that_is_there_is_not_missing(tmp_path: Path) -> None:
    present = ctypes.util.find_library("curl")  # its name begins as those of CUDA do
    if present is None:
        pytest.skip("no libcurl here")
    provider = tmp_path / "provider.so"
    provider.write_bytes(b"\0" + present.encode() + b"\0libcublas.so.99\0")
    assert {present, "libcublas.so.99"} & set(missing_libraries(provider)) == {"libcublas.so.99"}
