"""CUDA graphs for shapes that repeat."""

from collections.abc import Callable

from swise_engines.cuda import Cuda, Graph, Stream

# One run lets TensorRT settle what it does lazily for a shape; the next one can be recorded.
RUNS_BEFORE_CAPTURE = 1


class GraphOfShape:
    """Records the run of a shape once it repeats, and replays it until the shape changes."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._graph: Graph | None = None
        self._shape: tuple[int, ...] | None = None
        self._num_runs = 0

    def run(self, stream: Stream, shape: tuple[int, ...], enqueue: Callable[[], None]) -> None:
        """Put one run on the stream: enqueued, or replayed where this shape was just run."""
        if shape != self._shape:
            self.forget()
            self._shape = shape
        if self._graph is None and self._num_runs >= RUNS_BEFORE_CAPTURE:
            self._graph = self._cuda.capture(stream, enqueue)
        if self._graph is None:
            enqueue()
        else:
            self._graph.launch(stream)
        self._num_runs += 1

    def forget(self) -> None:
        """Drop what was recorded: its addresses or its shape are about to change."""
        if self._graph is not None:
            self._graph.release()
        self._graph = self._shape = None
        self._num_runs = 0
