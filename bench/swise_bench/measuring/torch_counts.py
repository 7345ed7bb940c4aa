"""Counting a torch network on torch's dispatcher, as `swise_export.counting` counts files.

Nothing is computed: the network runs on the meta device, which knows shapes only. torch's own
FlopCounterMode counts 2 per MAC (a multiplication and an addition), fvcore 1, as here.
"""

import copy
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from swise_deploy.precision import precision_of_type
from swise_export.counting import Counts, LayerCounts

aten = torch.ops.aten

# Operators of the dispatcher that move or convert data and compute nothing; views are recognised
# by their schema.
_MOVERS = frozenset(
    [
        "cat",
        "stack",
        "clone",
        "pixel_shuffle",
        "pixel_unshuffle",
        "copy_",
        "_to_copy",
        "replication_pad2d",
        "constant_pad_nd",
        "reflection_pad2d",
        "index",
        "roll",
        "empty",
        "zeros",
        "ones",
        "full",
        "arange",
        "channel_shuffle",
        "repeat",
        "fill",
        "flip",
        "new_zeros",
        "new_full",
        "new_empty",
        "zeros_like",
        "ones_like",
        "empty_like",
        "_unsafe_view",
        "_unsafe_index",
        "scalar_tensor",
        "constant_pad_nd",
        "replication_pad1d",
        "_reshape_copy",
        "lift_fresh_copy",
        "unfold_copy",
        "eye",
        "tril",
        "triu",
        "split_with_sizes_copy",
        "meshgrid",
        "linspace",
    ]
)
# Operators without Mult-Adds by the convention, besides those that torch tags as pointwise.
_FREE = frozenset(
    [
        "sum",
        "mean",
        "prod",
        "var",
        "std",
        "var_mean",
        "std_mean",
        "amax",
        "amin",
        "max",
        "min",
        "argmax",
        "argmin",
        "cumsum",
        "cumprod",
        "logsumexp",
        "norm",
        "linalg_vector_norm",
        "topk",
        "sort",
        "_softmax",
        "_safe_softmax",
        "_log_softmax",
        "softmax",
        "native_layer_norm",
        "native_group_norm",
        "native_batch_norm",
        "native_dropout",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "batch_norm_elemt",
        "avg_pool2d",
        "_adaptive_avg_pool2d",
        "adaptive_avg_pool2d",
        "max_pool2d_with_indices",
        "adaptive_max_pool2d",
        "upsample_nearest2d",
        "_upsample_nearest_exact2d",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "_upsample_bilinear2d_aa",
        "_upsample_bicubic2d_aa",
        "grid_sampler_2d",
        "im2col",
        "col2im",
        "glu",
        "rrelu_with_noise",
        "_prelu_kernel",
        "clamp",
        "where",
        "masked_fill",
        "gather",
        "scatter",
        "scatter_add",
        "index_put",
        "index_select",
        "bernoulli",
        "rand",
        "randn",
        "lerp",
        "hardtanh",
        "bucketize",
        "_weight_norm_interface",
    ]
)
_CONVOLUTION = "convolution"
_MATRIX_PRODUCTS = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1}


def count_torch(module: nn.Module, *, lr_size: tuple[int, int]) -> Counts:
    """Count a network for one picture (1, 3, H, W), lr_size = (W, H).

    Parameters that the run never read are counted too, under the name "never read".
    """
    width, height = lr_size
    network = copy.deepcopy(module).to("meta").eval()
    recorder = _Recorder()
    with torch.no_grad(), recorder.modules, recorder:
        sr = network(torch.empty(1, 3, height, width, device="meta"))
    layers = list(recorder.layers)
    never_read = sum(p.numel() for p in network.parameters()) - sum(x.params for x in layers)
    if never_read:
        layers.append(LayerCounts("never read", "none", never_read, 0, 0, 0, 0, "none"))
    return Counts(
        lr_size=lr_size,
        sr_size=(sr.shape[3], sr.shape[2]),
        layers=tuple(layers),
        uncounted=dict(recorder.uncounted),
        unknown=dict(recorder.unknown),
    )


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch lacks the type
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch lacks the type
        self.modules = ModuleTracker()
        self.layers: list[LayerCounts] = []
        self.uncounted: Counter[str] = Counter()
        self.unknown: dict[str, str] = {}
        self._read: set[int] = set()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,  # the type has no public name
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # whatever the operator returns
        del types
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._record(func, [a for a in _flat(args) if isinstance(a, Tensor)], args, result)
        return result

    def _record(
        self,
        func: torch._ops.OpOverload,
        tensors: list[Tensor],
        args: Sequence[Any],
        result: Tensor,
    ) -> None:
        name = func.overloadpacket.__name__
        aliases = [r.alias_info for r in func._schema.returns]  # noqa: SLF001  # no public way
        is_view = any(alias and not alias.is_write for alias in aliases)
        params = 0
        for tensor in tensors:
            if isinstance(tensor, nn.Parameter) and id(tensor) not in self._read:
                self._read.add(id(tensor))
                params += tensor.numel()
        mult_adds = _mult_adds(name, args, result)
        plain = name.removesuffix("_")  # in place
        is_mover = is_view or plain in _MOVERS or name in _MOVERS
        if not (mult_adds or is_mover):
            if torch.Tag.pointwise in func.tags or plain in _FREE:
                self.uncounted[name] += 1
            else:
                self.unknown[name] = f"the Mult-Adds of {name} are unknown"
        moved = [] if is_view else [*tensors, result]
        path = max(self.modules.parents, key=len, default="")
        self.layers.append(
            LayerCounts(
                name=path.partition(".")[2] or path,
                op_type="Conv" if name == _CONVOLUTION else name,
                params=params,
                mult_adds=mult_adds,
                activations=result.numel() if mult_adds else 0,
                traffic_bytes=sum(t.nbytes for t in moved),
                num_moved=sum(t.numel() for t in moved),
                precision=precision_of_type(str(result.dtype).removeprefix("torch."))
                or str(result.dtype),
            )
        )


def _mult_adds(name: str, args: Sequence[Any], result: Tensor) -> int:
    if name == _CONVOLUTION:
        lr, weight, is_transposed = args[0], args[1], args[6]
        per_element: int = math.prod(weight.shape[1:])
        return per_element * (lr.numel() if is_transposed else result.numel())
    if name in _MATRIX_PRODUCTS:
        inner: int = args[_MATRIX_PRODUCTS[name]].shape[-1]
        return result.numel() * inner
    return 0


def _flat(values: Sequence[Any]) -> list[Any]:
    flat: list[Any] = []
    for value in values:
        flat.extend(value if isinstance(value, (list, tuple)) else [value])
    return flat
