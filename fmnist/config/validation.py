"""Checks of values against the annotations of what they are for."""

import inspect
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from fmnist.config.similar import did_you_mean as did_you_mean

PLAIN_WORDS = {
    "a valid array": "a list",
    "a valid boolean": "true or false",
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid string": "a string",
}
"""Replacements for pydantic's names of types."""


def check_arguments(key: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Check that a target takes the arguments, and that its annotations allow their values.

    Args:
        key: what the user types before the argument's name: "model" for `model.dropout`, "" for nothing.
        target: a class or function, with bounds in its annotations: `Annotated[float, Ge(0), Lt(1)]`.
        arguments: plain values by name, as they come from YAML.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except NameError:  # the library imports the names in its annotations for type checkers only
        hints = {}
    for name, value in arguments.items():
        path = f"{key}.{name}" if key else name
        if name not in parameters and not takes_any:
            raise ValueError(f"{path}: there is no such argument{did_you_mean(name, parameters)}")
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"{path}={value!r}: must not contain NUL")
        if name in hints:
            check_value(path, hints[name], value)


def check_value(key: str, hint: Any, value: Any) -> None:
    """Check that an annotation allows a value, which is read as strict JSON.

    A list is allowed for a tuple and 1 for 1.0, but "1" is no number and true is not 1.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    try:
        text = json.dumps(value, default=_plain, allow_nan=False)
    except ValueError:
        raise ValueError(f"{key}={_as_typed(value)}: must be finite") from None
    except TypeError:
        return  # JSON can't express it; the target itself has to refuse it
    try:
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_json(text, strict=True)
    except (PydanticSchemaGenerationError, TypeError):
        return  # pydantic can't check it
    except ValidationError as error:
        problems = [detail for detail in error.errors() if detail["type"] != "needs_python_object"]
        if not problems:
            return  # no plain value has this type, for example a Tensor
        rule = " or ".join(dict.fromkeys(allowed(detail["msg"]) for detail in problems)).replace(" or be ", " or ")
        if value is None:
            raise ValueError(f"{key}=null: is required, and must {rule}") from None
        quotes = f""": in quotes it is one, '{key}="..."'""" if rule == "be a string" else ""
        example = f", as {shlex.quote(f'{key}=[{_as_typed(value)}]')}" if rule == "be a list" else ""
        raise ValueError(f"{key}={_as_typed(value)}: must {rule}{quotes}{example}") from None


def allowed(message: str) -> str:
    """Return the part of pydantic's message that follows "must"."""
    if message == "Field required":  # an item of a tuple
        return "have more items"
    if message.startswith("Invalid JSON"):
        return "be Unicode"
    rule = re.sub(r"^\w+ should ", "", message).replace(" after validation", "")
    return re.sub("|".join(PLAIN_WORDS), lambda found: PLAIN_WORDS[found[0]], rule)


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """Return OmegaConf's mappings and lists as Python's, for json."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError
