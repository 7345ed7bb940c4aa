"""CUDA graphs for shapes that repeat."""

import logging
from collections.abc import Callable

from swise_deploy.errors import SwiseError
from swise_engines.cuda.boundary import Cuda, Graph, Stream

logger = logging.getLogger(__name__)

# One run lets TensorRT settle what it does lazily for a shape; the next one can be recorded.
RUNS_BEFORE_CAPTURE = 1


class GraphOfShape:
    """Records the run of a shape once it repeats, and replays it until the shape changes.

    An engine that cannot be recorded, as one on a deep-learning accelerator, runs without graphs.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._graph: Graph | None = None
        self._shape: tuple[int, ...] | None = None
        self._num_runs = 0
        self._is_recordable = True

    def run(self, stream: Stream, shape: tuple[int, ...], enqueue: Callable[[], None]) -> None:
        """Put one run on the stream: enqueued, or replayed where this shape was just run."""
        if shape != self._shape:
            self.forget()
            self._shape = shape
        is_due = self._num_runs >= RUNS_BEFORE_CAPTURE and self._is_recordable
        if self._graph is None and is_due:
            self._graph = self._record(stream, enqueue)
        if self._graph is None:
            enqueue()
        else:
            self._graph.launch(stream)
        self._num_runs += 1

    def _record(self, stream: Stream, enqueue: Callable[[], None]) -> Graph | None:
        try:
            return self._cuda.capture(stream, enqueue)
        except SwiseError as error:
            self._is_recordable = False
            logger.warning("runs without CUDA graphs: %s", error)
            return None

    def forget(self) -> None:
        """Drop what was recorded: its addresses or its shape are about to change."""
        if self._graph is not None:
            self._graph.release()
        self._graph = self._shape = None
        self._num_runs = 0
