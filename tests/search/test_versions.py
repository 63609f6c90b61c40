"""What is known of a worker, and which one may be given work."""

from __future__ import annotations

import platform

import keras
import pytest
import tensorflow as tf

from mnist_tuner import __version__
from mnist_tuner.search.versions import describe, difference, of_this_machine, question

HERE = {"python": "3.11.7", "mnist_tuner": "0.1.0", "tensorflow": "2.21.0", "keras": "3.15.1", "keras_tuner": "1.4.8"} | {
    "numpy": "2.4.6"
}


def test_the_question_is_answered_without_anything_but_python() -> None:
    answer = eval(question(), {})
    assert answer == describe()
    assert answer["processor"]
    versions = answer["versions"]
    assert (versions["python"], versions["mnist_tuner"]) == (platform.python_version(), __version__)
    assert (versions["tensorflow"], versions["keras"]) == (tf.__version__, keras.__version__)
    assert versions.keys() == HERE.keys()
    assert of_this_machine().versions == versions


def test_what_makes_no_difference_is_none() -> None:
    assert difference(HERE, HERE) is None
    assert difference({**HERE, "python": "3.11.9", "numpy": "2.1.0"}, HERE) is None


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"python": "3.12.1"}, "it has Python 3.12.1: install Python 3.11 there"),
        ({"mnist_tuner": None}, "it has no mnist_tuner: install mnist_tuner 0.1.0 there"),
        ({"mnist_tuner": "0.2.0"}, "it has mnist_tuner 0.2.0: install mnist_tuner 0.1.0 there"),
        ({"tensorflow": "2.21.1"}, "it has tensorflow 2.21.1: install tensorflow 2.21.0 there"),
        ({"keras": "3.16.0"}, "it has keras 3.16.0: install keras 3.15.1 there"),
        ({"keras_tuner": "1.4.7"}, "it has keras-tuner 1.4.7: install keras-tuner 1.4.8 there"),
        ({"numpy": "1.26.4"}, "it has numpy 1.26.4: install numpy 2 there"),
        ({"keras": None, "numpy": None}, "it has no keras, no numpy: install keras 3.15.1, numpy 2 there"),
    ],
)
def test_each_difference_is_said_with_what_to_install(there: dict[str, str | None], said: str) -> None:
    assert difference({**HERE, **there}, HERE) == said
