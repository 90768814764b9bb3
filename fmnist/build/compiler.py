"""Whether this machine can compile a network."""

import os
import shutil
import sysconfig
from pathlib import Path


def check_compiler(device: str) -> None:
    """Looks for what torch.compile would miss in the first step.

    Args:
        device: its type, as torch names it.

    Raises:
        ValueError: naming what isn't there.
    """
    # A second, which only compile=true should pay.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch.utils._triton import has_triton

    if device == "cpu":
        try:
            get_cpp_compiler()
        except RuntimeError:
            raise ValueError("compile=true: it needs a C++ compiler: g++, or the one that CXX names") from None
    if device == "cuda":
        if not has_triton():
            raise ValueError("compile=true: it needs Triton, and a GPU that Triton knows")
        if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
            raise ValueError("compile=true: it needs a C compiler: gcc, clang, or the one that CC names")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if device in ("cpu", "cuda") and not header.is_file():
        raise ValueError(f"compile=true: it needs Python's headers (python3-dev or python3-devel): no {header}")
