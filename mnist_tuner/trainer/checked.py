"""What is read from a file becomes a dataclass, every type checked. Importing this does not import pydantic."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from mnist_tuner.errors import brief

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # it takes its time: who reads nothing does without

    return TypeAdapter(kind)


def checked(kind: type[T], values: Any) -> T:
    """JSON values as what they should be.

    Args:
        kind: a dataclass, or a type of its fields.
        values: of its fields, by name; those that it does not have are left out.

    Raises:
        ValueError: one is missing, or of another type, or out of its bounds.
    """
    adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # a type is hashable
    return adapter.validate_python(values)


def what_is_wrong(error: Exception) -> str:
    """In a few words, with what came."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return brief(" ".join((str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}").split()))
    first = errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the document"
    return f"{brief(place)}: {brief(first['msg'])}"
