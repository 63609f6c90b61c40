"""Whether two searches are about the same data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def fingerprint(value: Any) -> Any:
    """JSON values that tell data apart: an array, a tensor or a table by a checksum of its bytes, an object by its own
    `fingerprint` method.

    What has neither, such as a `tf.data.Dataset`, is known by its type only.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (str, int, bool, type(None))):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): fingerprint(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fingerprint(item) for item in value]
    if hasattr(value, "fingerprint"):
        return fingerprint(value.fingerprint())
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        content = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
        return f"{array.dtype}{list(array.shape)} {hashlib.sha256(content).hexdigest()}"
    return type(value).__qualname__
