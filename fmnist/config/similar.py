"""Names that are like a mistyped one. Nothing heavy is imported here."""

import difflib
import re
from collections.abc import Iterable

LIKE = 0.6  # of difflib's ratio: a letter too many, missing or swapped in a word, but no other word
CLOSE = 0.1  # behind the nearest candidate: others are left out


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the nearest candidates, or "; there are ..." with all if none is near."""
    candidates = sorted(candidates)
    if near := nearest(name, candidates):
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(candidates)}" if candidates else ""


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """Return up to three candidates that are like a name, the nearest first.

    The last parts of dotted keys are compared: model.dropuot is no more like model.stride than dropuot is like stride.
    Capital letters, `_` and `-` make no difference.
    """
    ratios = {candidate: _likeness(name, candidate) for candidate in candidates}
    best = max(ratios.values(), default=0.0)
    near = [candidate for candidate, ratio in ratios.items() if ratio >= max(LIKE, best - CLOSE)]
    return sorted(near, key=lambda candidate: -ratios[candidate])[:3]


def plain(name: str) -> str:
    """Return a name in small letters, without `_` and `-`."""
    return re.sub("[_-]", "", name.lower())


def _likeness(name: str, candidate: str) -> float:
    """Return difflib's ratio of two names, without what they have in common before the last `.` or `/`."""
    typed_level, typed = _split(name)
    level, last = _split(candidate)
    pair = (typed, last) if typed_level in (level, "") else (name, candidate)
    return difflib.SequenceMatcher(None, plain(pair[0]), plain(pair[1])).ratio()


def _split(name: str) -> tuple[str, str]:
    end = max(name.rfind("."), name.rfind("/")) + 1
    return name[:end], name[end:]
