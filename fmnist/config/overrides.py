"""The words of a command line, as Hydra's grammar has them."""

import os
import re
from collections.abc import Sequence

FLAGS_WITH_A_VALUE = {"-cp", "-cn", "-cd", "-p", "-c", "-i"}
FLAGS_WITH_A_VALUE |= {"--config-path", "--config-name", "--config-dir", "--package", "--cfg", "--info"}


def flags_first(words: Sequence[str]) -> list[str]:
    """The words of a command line with key=value ones at the end: Hydra takes no flag after or between them."""
    pairs = zip(["", *words], words, strict=False)
    settings = ["=" in word and word[0] != "-" and before not in FLAGS_WITH_A_VALUE for before, word in pairs]
    flags = [word for word, is_setting in zip(words, settings, strict=True) if not is_setting]
    return flags + [word for word, is_setting in zip(words, settings, strict=True) if is_setting]


def paths_as_list(key: str, arguments: list[str]) -> list[str]:
    """The command line with its paths as the value of one key, quoted for Hydra's grammar, at the end.

    A path is what has no '=', or exists: a folder may well be called optimizer=sgd,seed=0.
    """
    rest: list[str] = []
    paths: list[str] = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        is_flag = word.startswith("-") or before in FLAGS_WITH_A_VALUE
        can_be_override = "=" in word or word.startswith("~") or not word
        is_path = not is_flag and (not can_be_override or os.path.exists(word))  # noqa: PTH110 - also of what is too long
        (paths if is_path else rest).append(word)
    if not paths:
        return rest
    if any(word.startswith(f"{key}=") for word in rest):
        raise ValueError(f"{key}=...: either that or words, not both")
    return [*rest, f"{key}=[{','.join(map(quoted, paths))}]"]


def quoted(text: str) -> str:
    """A text as Hydra's grammar reads it back; what would end it early or be replaced is escaped."""
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + ("\\" + found[2] if found[2] else ""), text)
    return '"' + escaped.replace("${", "\\${") + '"'


def key_of(word: str) -> str:
    """What a word is about: what stands before the '=', without a package (@)."""
    return word.partition("=")[0].lstrip("+~").partition("@")[0]
