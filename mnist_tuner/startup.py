"""Loading TensorFlow in a process of our own: faster, quiet, and with the threads that were asked for.

Only the commands call this. Imported as a library, the package changes nothing of the process.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import os
import platform
import stat
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mnist_tuner.errors import InputError
from mnist_tuner.trainer.backend import check_backend, choose_backend, installed_version

_SET_BY_US = "_MNIST_TUNER_SET_LOG_LEVEL"

CACHED_PROGRAMS = 100
"""So many compiled programs are kept, of about 0.4 MB each; the oldest go first."""


def load_tensorflow(threads: int | Callable[[], int], cached: bool = True, woken: bool = True) -> float:
    """Imports TensorFlow and Keras.

    Args:
        threads: TensorFlow's threads within an operation; a function is called when the import is done, and tells.
        cached: whether XLA is to keep what it compiles; see `compile_cache`.
        woken: whether to begin with the first operation. Not so in a process that is to be forked: it starts threads.

    Returns:
        The seconds that it took.

    Raises:
        InputError: Keras is set to another backend than TensorFlow.
    """
    try:
        check_backend()
    except ImportError as error:
        raise InputError(str(error)) from None
    began = time.perf_counter()
    _tune_xla()
    cache = compile_cache() if cached else None
    if cache is not None:
        flags, flag = os.environ.get("TF_XLA_FLAGS", ""), f"--tf_xla_persistent_cache_directory={cache}"
        if flag not in flags.split():
            os.environ["TF_XLA_FLAGS"] = f"{flags} {flag}".strip()
    with _no_garbage_collection(), _held_back("sklearn", "matplotlib", "IPython"), _silenced():
        choose_backend()
        # Forked workers ask for tf.compat after each trial (keras.backend.clear_session does): better loaded once for all.
        with _deferred() if woken else nullcontext():
            import tensorflow as tf
        import keras

        with suppress(RuntimeError):  # it has begun to compute, as in a notebook's second cell: its threads stay as they are
            tf.config.threading.set_intra_op_parallelism_threads(threads() if callable(threads) else threads)
        if woken:
            keras.random.SeedGenerator(0)  # the first operation: it wakes the runtime, which has something to say, too
            if not is_tried():  # before 2.21 XLA, too, has something to say
                tf.function(lambda: tf.constant(0), jit_compile=True, autograph=False)()
    return time.perf_counter() - began


def load_keras_tuner(bayesian: bool) -> None:
    """Imports KerasTuner, after TensorFlow.

    Args:
        bayesian: whether its Bayesian search is wanted: that takes scipy and scikit-learn, for which KerasTuner 1.4.8 otherwise
            spends one to two seconds.
    """
    absent = ("matplotlib", "pandas") if bayesian else ("sklearn", "scipy", "matplotlib", "pandas")
    with _no_garbage_collection(), _held_back(*absent):
        import keras_tuner  # noqa: F401


def is_tried() -> bool:
    """Whether this is the TensorFlow release with which all was tried that goes beyond its documented interface."""
    return installed_version("tensorflow").startswith("2.21.")


def _tune_xla() -> None:
    """Has XLA use the processor's full vectors, and Eigen's matrix product instead of YNNPACK's.

    Measured on a processor with AVX-512, where it makes a step of the baseline a seventh faster; elsewhere, and where the
    user has set XLA_FLAGS, nothing is changed. XLA aborts at a flag that it does not know, and TensorFlow's releases differ
    in theirs: so only the release that this was tried with is tuned.
    """
    if "XLA_FLAGS" not in os.environ and is_tried() and " avx512f " in _processor():
        os.environ["XLA_FLAGS"] = "--xla_cpu_prefer_vector_width=512 --xla_cpu_experimental_ynn_fusion_type="


def _processor() -> str:
    """The processor's name and what it can do."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return " ".join(sorted({f"{line} " for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return platform.processor() + platform.machine()


def compile_cache() -> Path | None:
    """The folder in which XLA keeps what it has compiled, so that the next process need not; None where there is none.

    What lies there is machine code: so there is one folder per TensorFlow and processor, in the user's cache folder, and it
    must be the user's alone; those above it the user's or root's, and nobody else may put another in their place.
    A program that is read back computes the same bits as one that was just compiled.
    MNIST_TUNER_COMPILE_CACHE=off turns it off. Only with the release that it was tried with: TensorFlow 2.19 cannot read what
    it has written, and begins again for ever.
    """
    if not is_tried() or os.environ.get("MNIST_TUNER_COMPILE_CACHE") == "off" or not hasattr(os, "getuid"):
        return None
    machine = f"{_processor()} {os.environ.get('XLA_FLAGS')}"
    key = f"tensorflow-{installed_version('tensorflow')}-{hashlib.sha256(machine.encode()).hexdigest()[:16]}"
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        (home / "mnist_tuner").mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = home.resolve() / "mnist_tuner" / key
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077
        private = private and all(map(_only_ours, folder.parents))
        if not private or " " in str(folder) or not os.access(folder, os.W_OK):  # the flags are split at spaces
            return None
        for old in sorted(folder.iterdir(), key=lambda path: path.lstat().st_mtime)[:-CACHED_PROGRAMS]:
            old.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    return folder


def _only_ours(parent: Path) -> bool:
    """Whether nobody but the user and root can rename what lies in a folder."""
    status = parent.lstat()
    closed = not stat.S_IMODE(status.st_mode) & 0o022 or bool(status.st_mode & stat.S_ISVTX)
    return stat.S_ISDIR(status.st_mode) and status.st_uid in (0, os.getuid()) and closed


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """An import makes a million objects that stay: looking through them again and again is a sixth of its time.

    Afterwards they are exempt for good, which also halves the time of tracing a graph.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Absent(importlib.abc.MetaPathFinder):
    """Makes packages look as if they were not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is held back while Keras loads", name=name)
        return None


@contextmanager
def _held_back(*names: str) -> Iterator[None]:
    """Keeps optional packages out while Keras loads, and lets them in afterwards.

    Where they are installed, Keras 3.15 imports them at once (keras/src/wrappers, keras/src/visualization, the editor of its
    files for notebooks), for two to three seconds, and works as well without.
    """
    finder = _Absent([name for name in names if name not in sys.modules])
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


_RNN_CELLS = "tensorflow.python.keras.layers.rnn_cell_wrapper_v2"
_DECAYS = "tensorflow.python.training.learning_rate_decay"
_DEFERRED: dict[str, dict[str, str]] = {
    "tensorflow": {name: f"tensorflow._api.v2.{name}" for name in ("compat", "feature_column", "lite", "test", "tpu")},
    "tensorflow._api.v2.__internal__": {name: f"tensorflow._api.v2.__internal__.{name}" for name in ("feature_column", "test")},
    "tensorflow._api.v2.__internal__.distribute": {
        name: f"tensorflow._api.v2.__internal__.distribute.{name}" for name in ("combinations", "multi_process_runner")
    },
    "tensorflow._api.v2.nn": {
        f"RNNCell{name}Wrapper": f"{_RNN_CELLS}:{name}Wrapper" for name in ("Device", "Dropout", "Residual")
    },
    "tensorflow.python.training.training": {
        name: f"{_DECAYS}:{name}"
        for name in (
            *("cosine_decay", "cosine_decay_restarts", "exponential_decay", "inverse_time_decay", "linear_cosine_decay"),
            *("learning_rate_decay", "natural_exp_decay", "noisy_linear_cosine_decay", "piecewise_constant", "polynomial_decay"),
        )
    },
}
"""What nobody asks for, and a seventh of TensorFlow's import: which module's names stand for which modules, or things in them.

Behind these few names are TensorFlow 1's interface and the Keras of its time (tensorflow.python.keras), with scipy.
"""


_one_at_a_time = threading.RLock()


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives empty modules in the place of others."""

    def __init__(self) -> None:
        homes = [home.partition(":") for names in _DEFERRED.values() for home in names.values()]
        self.contents = {home: [name for other, _, name in homes if other == home and name] for home, _, _ in homes}
        self.contents |= {"tensorflow.python.keras": [], "tensorflow.python.keras.layers": []}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name in self.contents else None

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update(dict.fromkeys(self.contents[module.__name__]))


@contextmanager
def _deferred() -> Iterator[None]:
    """Has TensorFlow import what few ask for when somebody does, as a module's `__getattr__`; nothing else is changed.

    Not by importlib.util.LazyLoader: before Python 3.12 it is not thread-safe, and whoever looks through sys.modules, as
    `inspect` does, would load everything. Only the release that this was tried with is changed.
    """
    if "tensorflow" in sys.modules or not is_tried():
        yield
        return
    stubs = _Stubs()
    sys.meta_path.insert(0, stubs)
    try:
        yield
    finally:
        sys.meta_path.remove(stubs)
        for name in stubs.contents:
            parent, _, child = name.rpartition(".")
            if sys.modules.pop(name, None) is not None and parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)
    importlib.import_module("tensorflow.lite")  # another one, and empty; imported later, it would take tf.lite's place
    for name, homes in _DEFERRED.items():
        module = sys.modules[name]
        for attribute in homes:
            vars(module).pop(attribute, None)
        vars(module)["__getattr__"] = partial(_let_in, module)
    _let_in_old_optimizers()


def _let_in(module: types.ModuleType, name: str) -> Any:
    """A module's attribute that was deferred."""
    home, _, attribute = _DEFERRED[module.__name__].get(name, "").partition(":")
    if not home:
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}", name=name, obj=module)
    with _one_at_a_time:  # these modules import each other: two threads would find each other's half-made
        found: Any = importlib.import_module(home)
        setattr(module, name, getattr(found, attribute) if attribute else found)
    return getattr(module, name)


def _let_in_old_optimizers() -> None:
    """A SavedModel of old may hold an optimizer of old: its module, once imported, takes the place of this registration."""
    from tensorflow.python.saved_model.revived_types import VersionedTypeRegistration, register_revived_type

    def make(_: object) -> Any:
        return importlib.import_module("tensorflow.python.keras.optimizer_v2.optimizer_v2").RestoredOptimizer()

    versions = VersionedTypeRegistration(make, 1, 1, 1, setter=lambda optimizer, *value: optimizer._set_hyper(*value))
    register_revived_type("tf_deprecated_optimizer", lambda _: False, [versions])


@contextmanager
def _silenced() -> Iterator[None]:
    """Keeps TensorFlow's start-up messages (CUDA, oneDNN, CPU features) off the screen.

    They come from C++, some before TF_CPP_MIN_LOG_LEVEL is looked at: so the file descriptor itself is turned away. Who
    has set that variable wants to see them. If the import fails, all that was said is shown.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ and _SET_BY_US not in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # an error comes as an exception, too
    os.environ[_SET_BY_US] = "1"  # a worker process finds both
    try:
        saved = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except Exception:
            said.seek(0)
            os.write(saved, said.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
