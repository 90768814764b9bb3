"""Errors as messages for the user. Nothing heavy is imported here."""

import contextlib
from collections.abc import Iterator

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
"""Parts of messages of torch and of CUDA's libraries, whose errors have no class of their own."""


class OutOfMemory(ValueError):  # noqa: N818 (an input that is too large for the machine)
    """The machine has less memory than the user's choices need."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be allocated."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


@contextlib.contextmanager
def explain_out_of_memory(hint: str) -> Iterator[None]:
    """Replace an error about missing memory by one for the user.

    Args:
        hint: what to try.

    Raises:
        OutOfMemory: with the hint.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"out of memory: {hint}") from error
        raise


def one_line(error: BaseException) -> str:
    """Return the first paragraph of an error's message on one line."""
    return " ".join(str(error).strip().split("\n\n")[0].split())


@contextlib.contextmanager
def keys_as_typed() -> Iterator[None]:
    """Let messages name `data_root` and `accelerator`, the keys of commands that take a run, instead of the run's."""
    try:
        yield
    except ValueError as error:
        message = str(error).replace("data.root=", "data_root=").replace("trainer=cpu", "accelerator=cpu")
        error.args = (message.replace("trainer.accelerator=", "accelerator="),)
        raise
