"""The end of a machine's memory."""

import contextlib
from collections.abc import Iterator

SIGNS = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
"""In errors of torch and of CUDA's libraries that have no class of their own."""


class OutOfMemory(ValueError):  # noqa: N818 (a choice that is too large for the machine)
    """There isn't as much memory as was asked for; the message is meant for the user."""


@contextlib.contextmanager
def explain_out_of_memory(hint: str) -> Iterator[None]:
    """Within it memory that isn't there is a mistake like others.

    Args:
        hint: what to try.

    Raises:
        OutOfMemory: with the hint.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS):
            raise OutOfMemory(f"out of memory: {hint}") from error
        raise
