"""Checks what a person typed against the annotations of what it is meant for."""

import difflib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError


def check_arguments(key: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Refuses arguments that the target doesn't have, and values that its annotations don't allow.

    Args:
        key: what the person types before the argument's name: "model" for `model.dropout`, "" for nothing.
        target: a class or function, with bounds in its annotations: `Annotated[float, Ge(0), Lt(1)]`.
        arguments: plain values by name, as they come from YAML.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except NameError:  # a library that imports what its annotations name for type checkers alone
        hints = {}
    for name, value in arguments.items():
        path = f"{key}.{name}" if key else name
        if name not in parameters and not takes_any:
            raise ValueError(f"{path}: there is no such argument{did_you_mean(name, parameters)}")
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"{path}={value!r}: it should hold no NUL")
        if name in hints:
            check_value(path, hints[name], value)


def check_value(key: str, hint: Any, value: Any) -> None:
    """Refuses a value that an annotation doesn't allow.

    It is read as strict JSON: a list serves as a tuple and 1 as 1.0, but "1" is no number and true no 1.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    try:
        text = json.dumps(value, default=_plain, allow_nan=False)
    except ValueError:
        raise ValueError(f"{key}={_as_typed(value)}: it should be finite") from None
    except TypeError:
        return  # not something that JSON can express; the target itself has to refuse it
    try:
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_json(text, strict=True)
    except (PydanticSchemaGenerationError, TypeError):
        return  # not something that pydantic can check
    except ValidationError as error:
        problems = [detail for detail in error.errors() if detail["type"] != "needs_python_object"]
        if not problems:
            return  # a type that no plain value can have, a Tensor say
        allowed = dict.fromkeys(_allowed(detail["msg"]) for detail in problems)
        raise ValueError(f"{key}={_as_typed(value)}: it should {' or '.join(allowed)}") from None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """ "; did you mean ...?" with the nearest candidates, or the first of them where none is near."""
    candidates = sorted(candidates)
    near = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(candidates)}" if candidates else ""


def _allowed(message: str) -> str:
    """Pydantic's message as what comes after "it should"."""
    if message == "Field required":  # a tuple's
        return "have more items"
    if message.startswith("Invalid JSON"):
        return "be Unicode"
    return re.sub(r"^\w+ should ", "", message).replace(" after validation", "")


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """A config's own mappings and lists as Python's."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError
