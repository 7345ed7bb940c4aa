"""Torch functions that lose the picture's size when they are traced, replaced while it goes on."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def traceable_functions() -> Iterator[None]:
    """Replace torch's functions by others that compute the same and keep sizes open.

    The comparison with the network finds the sizes at which one does not hold.
    """
    replaced: list[tuple[Any, str, Callable[..., Tensor]]] = [
        (F, "adaptive_max_pool2d", _pool_by_kernel(F.adaptive_max_pool2d, F.max_pool2d)),
        (F, "adaptive_avg_pool2d", _pool_by_kernel(_averages_of_parts, F.avg_pool2d)),
        (torch, "tensor", _stack_sizes(torch.tensor)),
    ]
    originals = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    try:
        for module, name, function in replaced:
            setattr(module, name, function)
        with _TracedData():
            yield
    finally:
        for module, name, function in originals:
            setattr(module, name, function)


def _pool_by_kernel(
    adaptive: Callable[..., Tensor], pool: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """Adaptive pooling to a share of the picture, traced as pooling with a kernel.

    `adaptive_max_pool2d(x, (h // 4, w // 4))` has no counterpart in ONNX, since its output size
    follows from the picture. Where the size divides the picture's it is pooling with a kernel of
    4x4.
    """

    def call(x: Tensor, output_size: Any, *args: Any, **options: Any) -> Tensor:
        sizes = output_size if isinstance(output_size, (tuple, list)) else [output_size] * 2
        if any(isinstance(side, Tensor) for side in sizes):
            whole = [int(side) for side in x.shape[2:]]
            kernel = [a // int(b) for a, b in zip(whole, sizes, strict=True)]
            if all(k * int(b) == a for k, b, a in zip(kernel, sizes, whole, strict=True)):
                return pool(x, kernel, kernel)
        return adaptive(x, output_size, *args, **options)

    return call


_adaptive_avg_pool2d = F.adaptive_avg_pool2d


def _averages_of_parts(x: Tensor, output_size: Any) -> Tensor:
    """Adaptive average pooling to a constant number of parts, as two products of matrices.

    ONNX has it for pictures of one size only, and where the number divides that size.
    """
    sizes = output_size if isinstance(output_size, (tuple, list)) else [output_size] * 2
    if not all(isinstance(side, int) for side in sizes) or all(side == 1 for side in sizes):
        return _adaptive_avg_pool2d(x, output_size)
    rows, columns = (
        _part_weights(side, number, x) for side, number in zip(x.shape[2:], sizes, strict=True)
    )
    return rows @ x @ columns.T


def _part_weights(side: Any, num_parts: int, like: Tensor) -> Tensor:
    """Weights, (parts, side), of the averages over the parts of a side, which may overlap."""
    pixel = torch.arange(side, device=like.device)
    part = torch.arange(num_parts, device=like.device)[:, None]
    first = torch.div(part * side, num_parts, rounding_mode="floor")
    last = torch.div((part + 1) * side + num_parts - 1, num_parts, rounding_mode="floor")
    inside = ((pixel >= first) & (pixel < last)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def _stack_sizes(tensor: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let `torch.tensor([width, height])` keep sizes that tracing has as tensors.

    torch copies their values into a new constant; stacked they stay the picture's.
    """

    def call(
        data: Any, *args: Any, dtype: Any = None, device: Any = None, **options: Any
    ) -> Tensor:
        if isinstance(data, (list, tuple)) and any(
            isinstance(one, Tensor) and one.ndim == 0 for one in data
        ):
            whole = torch.stack([torch.as_tensor(one) for one in data])
            return whole.to(dtype=dtype, device=device)
        return tensor(data, *args, dtype=dtype, device=device, **options)

    return call


class _TracedData(TorchFunctionMode):
    """Let `x.data` be x: the sizes of a detached tensor are constants to the tracer."""

    def __torch_function__(self, function: Any, _: Any, args: Any = (), options: Any = None) -> Any:
        if function == torch.Tensor.data.__get__:  # type: ignore[attr-defined]  # a descriptor
            return args[0]
        return function(*args, **(options or {}))
