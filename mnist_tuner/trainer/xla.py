"""Whether XLA pays for a graph, and what is done so that it does.

On a processor XLA spares the 2 microseconds or so that TensorFlow spends on each operation, and joins operations to loops.
But it compiles for seconds, and its convolutions are many times slower than TensorFlow's. So "auto" follows a rule that is a
pure function of the graph and of the steps that are planned: no clock, so that equal trainings take equal programs anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

import tensorflow as tf

RUNS_PER_COMPILED_OPERATION = 2900
"""XLA takes about as long to compile an operation as TensorFlow takes to start it so often (5 ms against 1.8 microseconds;
`scripts/benchmark models` prints both)."""

TURNS = 24
"""How often a loop within a step, as of a recurrent layer, is taken to turn."""

_NAMES = """
Abs AddN AddV2 All Any ArgMax ArgMin AssignAddVariableOp AssignSubVariableOp AssignVariableOp BatchMatMulV2 BatchMatMulV3
BiasAdd BiasAddGrad Bitcast BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs BroadcastGradientArgs BroadcastTo Cast Ceil
ClipByValue ConcatOffset ConcatV2 Const Cos Cumsum DivNoNan Einsum Elu EluGrad EmptyTensorList EnsureShape Equal Erf Exp
ExpandDims Expm1 Fill Floor FloorDiv FloorMod GatherV2 Greater GreaterEqual Identity IdentityN If Inv InvGrad
InvertPermutation IsFinite IsNan L2Loss LeakyRelu LeakyReluGrad Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot
LogicalOr MatMul Max Maximum Mean Min Minimum Mul MulNoNan Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall
Placeholder Pow PreventGradient Prod Range ReadVariableOp RealDiv Reciprocal ReciprocalGrad Relu Relu6 Relu6Grad ReluGrad
Reshape ReverseV2 RightShift Round Rsqrt RsqrtGrad Select SelectV2 Selu SeluGrad Shape ShapeN Sigmoid SigmoidGrad Sign Sin
Size Slice Softmax SoftmaxCrossEntropyWithLogits Softplus SoftplusGrad Softsign SoftsignGrad
SparseSoftmaxCrossEntropyWithLogits Split SplitV Sqrt SqrtGrad Square SquaredDifference Squeeze StatefulPartitionedCall
StatelessIf StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomNormalV2 StatelessRandomUniformFullIntV2
StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessTruncatedNormalV2 StatelessWhile StopGradient StridedSlice
StridedSliceGrad Sub Sum Tan Tanh TanhGrad TensorListElementShape TensorListFromTensor TensorListGetItem TensorListLength
TensorListPopBack TensorListPushBack TensorListReserve TensorListSetItem TensorListStack Tile Transpose TruncateDiv
TruncateMod Unpack UnsortedSegmentSum VarHandleOp VariableShape While Xlogy ZerosLike
"""
_FAST = frozenset(_NAMES.split())
"""The operations that XLA runs at least about as fast as TensorFlow on a processor. What is not among them, as a convolution or
the gradient of a pooling, has been measured to be slower, or not at all."""
_OF_ANY_SIZE = frozenset({"Assert", "DynamicStitch"})
"""What a graph of batches of any size has besides, for shapes that it does not know; XLA is given one of a single size."""

planned_epochs: ContextVar[int] = ContextVar("planned_epochs", default=0)
"""How many epochs are planned for a model in all, where several fits of it, or of models like it, are: as in a search."""


@dataclass(frozen=True)
class Cost:
    """What a compiled loop consists of.

    Attributes:
        operations: in its graph.
        runs: of operations in one turn of the loop, that is in one step.
        fast: whether XLA is fast at all of them.
        random: whether some draw random numbers.
    """

    operations: int
    runs: int
    fast: bool
    random: bool

    def pays(self, steps: float) -> bool:
        """Whether XLA earns back in so many steps what it costs to compile."""
        return self.fast and self.runs * steps > self.operations * RUNS_PER_COMPILED_OPERATION


def cost_of(graph: tf.Graph) -> Cost:
    """Looks through a graph whose outermost loop runs over the steps, and through the functions that it calls."""
    definition = graph.as_graph_def()
    functions = {function.signature.name: function.node_def for function in definition.library.function}
    kinds: set[str] = set()
    runs_at: list[int] = []

    def visit(nodes: Any, depth: int) -> None:
        for node in nodes:
            kinds.add(node.op)
            runs_at.append(TURNS ** (depth - 1) if depth else 0)
            called = [function.name for attribute in node.attr.values() for function in (attribute.func, *attribute.list.func)]
            for name in called:
                visit(functions.get(name, ()), depth + (node.op in ("While", "StatelessWhile")))

    visit(definition.node, 0)
    fast = kinds <= _FAST | _OF_ANY_SIZE
    return Cost(len(runs_at), sum(runs_at), fast, any(kind.startswith("StatelessRandom") for kind in kinds))


def takes_strings(graph: tf.Graph) -> bool:
    """Whether an input or a captured tensor of a graph is a string.

    XLA of TensorFlow 2.21 has none, and once it has been given one the next thing that it compiles aborts the process.
    """
    return any(tensor.dtype == tf.string for tensor in graph.inputs)


def kept_programs() -> Path | None:
    """The folder in which XLA keeps what it has compiled, where there is one of ours with something in it."""
    found = re.search(r"--tf_xla_persistent_cache_directory=(\S+)", os.environ.get("TF_XLA_FLAGS", ""))
    folder = Path(found[1]) if found else Path()
    return folder if folder.parent.name == "mnist_tuner" and any(folder.glob("*")) else None


@contextmanager
def quick_random_numbers() -> Iterator[None]:
    """While a step is traced for XLA, the random numbers of `keras.random` and `tf.random` come from ThreeFry.

    XLA of TensorFlow 2.21 computes the key of Philox, the default, once more for each number that is drawn with it: a dropout in
    front of a small layer takes a hundred times as long as the layer. Another algorithm that was asked for stays.
    """
    functions: list[tuple[Any, str, str]] = [
        (tf.random, "stateless_uniform", "alg"),
        (tf.random, "stateless_normal", "alg"),
        (tf.random, "stateless_truncated_normal", "alg"),
        (tf.nn.experimental, "stateless_dropout", "rng_alg"),
    ]
    known = [(owner, name, getattr(owner, name)) for owner, name, _ in functions]
    for owner, name, argument in functions:
        setattr(owner, name, _by_default(getattr(owner, name), argument))
    try:
        yield
    finally:
        for owner, name, function in known:
            setattr(owner, name, function)


def _by_default(function: Any, argument: str) -> Any:
    return wraps(function)(partial(function, **{argument: "threefry"}))


def without_gpu() -> bool:
    """Whether no GPU computes what is computed here: there is none, or it is left alone. For a GPU XLA is always taken."""
    return "GPU" not in tf.zeros([]).device
