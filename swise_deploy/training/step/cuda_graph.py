"""The passes of a training step as a CUDA graph: one launch instead of a thousand."""

from collections.abc import Callable

import torch
from torch import Tensor

from swise_deploy.errors import SwiseError, first_line

NUM_PLAIN = 3
"""Steps made plainly before the recording: libraries choose kernels, torch.compile compiles."""

Passes = Callable[..., Tensor]
"""Forward and backward pass: leaves gradients, returns the loss."""


class RecordedStep:
    """Records passes once and replays them; the launches cost a small network more than the work.

    Recording follows torch's advice for whole-network capture: plain steps on a stream of its own,
    then gradients that the graph itself allocates, and inputs at addresses that stay.

    Args:
        passes: What is recorded; nothing in it may wait for the GPU.
        forget_gradients: Sets every gradient to None.
    """

    def __init__(self, passes: Passes, forget_gradients: Callable[[], None]) -> None:
        self._passes = passes
        self._forget_gradients = forget_gradients
        self._num_plain = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._loss = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Make the passes on inputs of the shapes of the first call.

        Returns:
            The loss; the next call overwrites it.

        Raises:
            SwiseError: The network cannot be recorded.
        """
        if self._num_plain < NUM_PLAIN:
            self._num_plain += 1
            return self._pass_plainly(inputs)
        if self._graph is None:
            self._graph = self._record(inputs)
        for kept, new in zip(self._inputs, inputs, strict=True):
            kept.copy_(new)
        self._graph.replay()
        return self._loss

    def _pass_plainly(self, inputs: tuple[Tensor, ...]) -> Tensor:
        here = torch.cuda.current_stream()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own signature
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self._forget_gradients()
            loss = self._passes(*inputs)
        here.wait_stream(aside)
        return loss

    def _record(self, inputs: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        self._inputs = tuple(given.clone() for given in inputs)
        self._forget_gradients()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._loss = self._passes(*self._inputs)
        except RuntimeError as error:
            raise SwiseError(
                f"this network cannot be recorded as a CUDA graph: {first_line(error)}. "
                "Train it with --no-cuda-graph"
            ) from error
        return graph
