"""What the name of a file, a folder or an array says: training or test, images or labels, and of which data set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

TRAINING, VALIDATION, TEST = "training", "validation", "test"
PARTS = (TRAINING, VALIDATION, TEST)

_PARTS = {
    **dict.fromkeys(("train", "training", "trn", "tra", "tr"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst", "tes", "te", "ts", "t10k"), TEST),
}
_KINDS = {
    **dict.fromkeys(("images", "image", "imgs", "img", "pixels", "patterns"), "images"),
    **dict.fromkeys(("labels", "label", "lbls", "targets", "target"), "labels"),
}
_LETTERS = {"x": "images", "data": "images", "y": "labels", "class": "labels", "classes": "labels"}
"""Say less than a word does."""
_NOISE = re.compile(
    r"idx\d*|u?byte|u?int\d*|short|float\d*|raw|processed|data|dataset|datasets|files?|set|archive|x|y|arr|full|numpy|"
    r"gz|bz2|xz|zip|tar|tgz|npz|npy|csv|tsv|txt|parquet|pngs?|jpe?gs?|bmp"
)
_GLUED = re.compile(rf"(?P<a>{'|'.join([*_KINDS, *_LETTERS])})?(?P<p>{'|'.join(_PARTS)})(?P<b>{'|'.join([*_KINDS, *_LETTERS])})?")
SHARD = re.compile(r"-\d{5}-of-(\d{5})(-[0-9a-f]{8,})?")
"""One of several files that are a part together, as Hugging Face cuts them."""


@dataclass(frozen=True)
class Said:
    """What a name says.

    Attributes:
        part: training, validation or test; None where it does not say.
        kind: "images" or "labels"; None where it does not say.
        rest: the other words, in small letters.
    """

    part: str | None
    kind: str | None
    rest: tuple[str, ...]


@lru_cache(4096)  # a folder of pictures is asked about for each of them
def read_name(name: str) -> Said:
    """What a name says, such as ``emnist-letters-train-images-idx3-ubyte.gz``, ``X_train`` or ``trainingSet``."""
    name = re.sub(r"\d+k?\s*x\s*\d+", " ", SHARD.sub("", name), flags=re.IGNORECASE)
    words: list[str] = []
    for chunk in re.findall(r"[^\W_]+", name):
        parts = [chunk] if chunk.lower() in _PARTS else re.split(r"(?<=[a-z0-9])(?=[A-Z])", chunk)
        for word in map(str.lower, parts):
            glued = _GLUED.fullmatch(word)
            words += [piece for piece in glued.group("a", "p", "b") if piece] if glued else [word]
    part = next((_PARTS[word] for word in words if word in _PARTS), None)
    kind = next((_KINDS[word] for word in words if word in _KINDS), None)
    kind = kind or next((_LETTERS[word] for word in words if word in _LETTERS), None)
    rest = tuple(word for word in words if word not in _PARTS and word not in _KINDS and not _NOISE.fullmatch(word))
    return Said(part, kind, rest)


def counterpart(name: str) -> str:
    """How the labels are called that belong to images, and the other way round."""
    pairs = [("images", "labels"), ("image", "label"), ("imgs", "labels"), ("x", "y"), ("X", "y"), ("idx3", "idx1")]
    pairs += [(second, first) for first, second in pairs if first not in ("image", "imgs", "X")]
    swapped = dict(reversed(pairs))
    pattern = "|".join(rf"(?<![A-Za-z]){each}(?![a-z])" if len(each) == 1 else each for each in swapped)
    return re.sub(pattern, lambda found: swapped[found.group()], name)
