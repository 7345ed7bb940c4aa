"""The passes of a training step as a CUDA graph: one launch instead of a thousand."""

from collections.abc import Callable

import torch
from torch import Tensor

from swise_deploy.errors import SwiseError, first_line

NUM_EAGER = 3
"""Eager steps before the capture: libraries choose kernels, torch.compile compiles."""

Passes = Callable[..., Tensor]
"""Forward and backward pass: accumulates gradients, returns the loss."""


class CapturedStep:
    """Captures passes once and replays them: for a small network, launches cost more than work.

    The capture follows torch's advice for whole networks: eager steps on a side stream, then
    gradients that the graph itself allocates, and inputs at fixed addresses.

    Args:
        passes: Captured; nothing in it may wait for the GPU.
        clear_gradients: Sets every gradient to None.
    """

    def __init__(self, passes: Passes, clear_gradients: Callable[[], None]) -> None:
        self._passes = passes
        self._clear_gradients = clear_gradients
        self._num_eager = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._loss = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Make the passes on inputs of the shapes of the first call.

        Returns:
            The loss; the next call overwrites it.

        Raises:
            SwiseError: The network cannot be captured.
        """
        if self._num_eager < NUM_EAGER:
            self._num_eager += 1
            return self._run_eagerly(inputs)
        if self._graph is None:
            self._graph = self._capture(inputs)
        for kept, new in zip(self._inputs, inputs, strict=True):
            kept.copy_(new)
        self._graph.replay()
        return self._loss

    def _run_eagerly(self, inputs: tuple[Tensor, ...]) -> Tensor:
        main = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own signature
        side.wait_stream(main)
        with torch.cuda.stream(side):
            self._clear_gradients()
            loss = self._passes(*inputs)
        main.wait_stream(side)
        return loss

    def _capture(self, inputs: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        self._inputs = tuple(given.clone() for given in inputs)
        self._clear_gradients()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._loss = self._passes(*self._inputs)
        except RuntimeError as error:
            raise SwiseError(
                f"this network cannot be captured as a CUDA graph: {first_line(error)}. "
                "Train it with --no-cuda-graph"
            ) from error
        return graph
