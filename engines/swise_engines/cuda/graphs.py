"""CUDA graphs for input shapes that repeat."""

import logging
from collections.abc import Callable

from swise_deploy.errors import SwiseError
from swise_engines.cuda.boundary import Cuda, Graph, Stream

logger = logging.getLogger(__name__)

# TensorRT does some work lazily in the first run of a shape; the next run can be captured.
RUNS_BEFORE_CAPTURE = 1


class GraphOfShape:
    """Captures the run of a shape that repeats, and replays it until the shape changes.

    An engine that cannot be captured, such as one on a DLA core, runs without graphs.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._graph: Graph | None = None
        self._shape: tuple[int, ...] | None = None
        self._num_runs = 0
        self._can_capture = True

    def run(self, stream: Stream, shape: tuple[int, ...], enqueue: Callable[[], None]) -> None:
        """Put one run on the stream; replay the graph if the previous run had the same shape."""
        if shape != self._shape:
            self.forget()
            self._shape = shape
        is_due = self._num_runs >= RUNS_BEFORE_CAPTURE and self._can_capture
        if self._graph is None and is_due:
            self._graph = self._capture(stream, enqueue)
        if self._graph is None:
            enqueue()
        else:
            self._graph.launch(stream)
        self._num_runs += 1

    def _capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph | None:
        try:
            return self._cuda.capture(stream, enqueue)
        except SwiseError as error:
            self._can_capture = False
            logger.warning("runs without CUDA graphs: %s", error)
            return None

    def forget(self) -> None:
        """Free the graph, because its addresses or its shape are about to change."""
        if self._graph is not None:
            self._graph.release()
        self._graph = self._shape = None
        self._num_runs = 0
