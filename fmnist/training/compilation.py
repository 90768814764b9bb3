"""Checks whether this machine can compile a network (`compile=true`) or replay it (`cuda_graph=true`)."""

import os
import shutil
import sysconfig
from pathlib import Path


def check_compiler(device: str) -> None:
    """Check that everything is installed that torch.compile would miss in the first step on a type of device.

    Raises:
        ValueError: naming what is missing.
    """
    # Imports of a second, only for compile=true.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch.utils._triton import has_triton

    missing = None
    if device == "cpu":
        try:
            get_cpp_compiler()
        except RuntimeError:
            missing = "a C++ compiler: g++, or the one that the environment variable CXX names"
    elif device == "cuda" and not has_triton():
        missing = "Triton, and a GPU that Triton supports"
    elif device == "cuda" and not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        missing = "a C compiler: gcc, clang, or the one that the environment variable CC names"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if device in ("cpu", "cuda") and not header.is_file():
        missing = missing or f"Python's headers (python3-dev or python3-devel), {header} is missing"
    if missing:
        raise ValueError(f"compile=true: needs {missing}")


def check_cuda_graph(device: str, processes: int, accumulated: int, compiled: bool) -> None:
    """Check that a training can replay its network.

    Args:
        device: type of the device, as torch names it.
        processes: their number.
        accumulated: number of batches whose gradients are added for one step.
        compiled: by torch.compile.

    Raises:
        ValueError: naming what doesn't go with it.
    """
    if device != "cuda":
        raise ValueError("cuda_graph=true: needs a GPU; cuda_graph=false trains without")
    if processes > 1:
        raise ValueError(f"cuda_graph=true: needs a training by one process, not {processes}")
    if accumulated > 1:
        raise ValueError(f"cuda_graph=true: needs trainer.accumulate_grad_batches=1, not {accumulated}")
    if compiled:
        raise ValueError("cuda_graph=true: needs compile=false")
