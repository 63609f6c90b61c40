"""Names of a package that are imported when they are first used, so that importing the package does not import TensorFlow."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any


def attach(
    package: str, file: str, importing: Callable[[], AbstractContextManager[None]] = nullcontext
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Gives a package the names that its ``__init__.py`` imports as themselves (``from a import b as b``).

    They stand there under ``if TYPE_CHECKING:``, where type checkers and editors read them; so each is said once. This is
    scientific-python's ``lazy_loader.attach_stub`` without the second file, and for other packages' modules, too.

    Args:
        package: its ``__name__``.
        file: its ``__file__``.
        importing: the context in which a name is imported.

    Returns:
        The package's ``__getattr__``, ``__dir__`` and ``__all__``.
    """
    homes = {
        alias.name: str(node.module)
        for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with importing():
            return getattr(importlib.import_module(homes[name]), name)

    return get, lambda: sorted(homes), sorted(homes)
