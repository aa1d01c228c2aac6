"""One SavedModel in one TensorFlow 1 session, called through the C++ session's callables.

Lives here: loading, the callable, the translation of TensorFlow's errors. Must not live here: JSON, protobuf requests,
versions. Why the session and not the eager signature: it is 1.9 to 2.4 times faster, accepts what TF Serving accepts (a
rank-1 tensor for a [?, 1] placeholder) and loads models that eager refuses. The callable is a private method of
TensorFlow, so `check_runtime` proves at start-up that it still does what is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.embedded.errors import Code, ServingError

RawCall = Callable[..., list[np.ndarray]]


@dataclass(frozen=True)
class Parallelism:
    """Threads of the runtime: `intra_op` within one operator, `inter_op` across operators; 0 lets TensorFlow choose."""

    intra_op: int = 0
    inter_op: int = 0


class GraphSession:
    """A loaded SavedModel: its graph, its session and its MetaGraphDef (what metadata answers from)."""

    def __init__(self, directory: str, tags: Sequence[str], parallelism: Parallelism) -> None:
        import tensorflow as tf

        self.graph = tf.Graph()
        self.session = tf.compat.v1.Session(graph=self.graph, config=session_config(parallelism))
        with self.graph.as_default():
            self.meta_graph = tf.compat.v1.saved_model.load(self.session, list(tags), directory)

    def callable(self, feeds: Sequence[str], fetches: Sequence[str]) -> RawCall:
        """Return f(*arrays in feed order) -> arrays in fetch order; raises ServingError with TensorFlow's own message."""
        return make_callable(self.session, feeds, fetches)


def make_callable(session: Any, feeds: Sequence[str], fetches: Sequence[str]) -> RawCall:
    """Build a callable on a session; see GraphSession.callable."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2

    options = config_pb2.CallableOptions(feed=list(feeds), fetch=list(fetches))
    run = session._make_callable_from_options(options)
    op_error = tf.errors.OpError

    def call(*arrays: Any) -> list[np.ndarray]:
        try:
            answers: list[np.ndarray] = run(*arrays)
        except op_error as error:
            raise ServingError(Code(error.error_code), error.message) from None
        return answers

    return call


def session_config(parallelism: Parallelism) -> Any:
    """The threads of a session, as TensorFlow takes them."""
    import tensorflow as tf

    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=parallelism.intra_op, inter_op_parallelism_threads=parallelism.inter_op
    )


def check_runtime(parallelism: Parallelism) -> str:
    """Prove the private callable on a three-node graph; return TensorFlow's version. Raises RuntimeError saying what changed.

    It takes the parallelism because the first session of a process sizes the thread pools of all of them.
    """
    import tensorflow as tf

    version: str = tf.__version__
    hint = f"the stand-in was written for tensorflow 2.21.0 and found {version}; install abgate[tensorflow]"
    with tf.Graph().as_default(), tf.compat.v1.Session(config=session_config(parallelism)) as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 1])
        y = x * 2.0
        try:
            call = make_callable(session, [x.name], [y.name])
            (answer,) = call(np.array([1.0, 2.0], np.float32))
        except (AttributeError, TypeError, ServingError) as error:
            raise RuntimeError(f"Session callable does not work ({error}): {hint}") from error
        if answer.tolist() != [2.0, 4.0]:
            raise RuntimeError(f"Session callable answered {answer.tolist()} for 2 * [1, 2]: {hint}")
        try:
            call(np.array([1], np.int32))
        except ServingError as error:
            if error.code is not Code.INVALID_ARGUMENT:
                raise RuntimeError(f"Session callable answered {error} for a wrong type: {hint}") from error
        else:
            raise RuntimeError(f"Session callable took int32 for float: {hint}")
    return version
