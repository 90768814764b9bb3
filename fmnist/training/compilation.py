"""Whether a network can be compiled on this machine, or replayed."""

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


def check_replay(device: str, processes: int, accumulated: int, compiled: bool) -> None:
    """Looks whether a training can be replayed.

    Args:
        device: its type, as torch names it.
        processes: that train together.
        accumulated: batches whose gradients are added in a step.
        compiled: whether torch.compile has the network.

    Raises:
        ValueError: if it can't.
    """
    if device != "cuda":
        raise ValueError("cuda_graph=true: it needs a GPU; cuda_graph=false trains without")
    if processes > 1:
        raise ValueError(f"cuda_graph=true: it needs a training by one process, not {processes}")
    if accumulated > 1:
        raise ValueError(f"cuda_graph=true: it needs trainer.accumulate_grad_batches=1, not {accumulated}")
    if compiled:
        raise ValueError("cuda_graph=true: it needs compile=false")
