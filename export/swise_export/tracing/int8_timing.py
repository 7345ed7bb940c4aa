"""INT8 only where it wins time, measured in the runtime that a file is for.

Layers of one kind (operator, kernel, grouping and resolution) run in the same kernels, so they are
timed together: the file as planned against the file with one kind of layer back in fp32, in turn
with fp32 and with smaller placements on the search's path. A kind stays in INT8 only if the file is
slower without it; kinds that are not are confirmed together. For TensorRT nothing is timed, since
nothing executes it here.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.storage.files import scratch
from swise_deploy.timing import Interval, cpu_ratio, picture_call, time_calls
from swise_export.config import ExportConfig
from swise_export.graph.operators import attribute
from swise_export.precision.plan import PrecisionPlan, TimedKind, TimedStep
from swise_export.precision.quantised.qdq import Layer, find_layers
from swise_export.precision.recipe import QuantisationRecipe
from swise_export.precision.search.placement import Step, Unit, in_order_of_noise, units_from_layers
from swise_export.runtimes.table import open_runner
from swise_export.tracing.trace import export_onnx, opset_of, traced_form

LATENCY_LR_SIZE = (80, 45)
"""Size, (W, H), at which an export is timed: a reading takes seconds on two cores. `swise-bench`
measures at any size."""

# Placements on the path that are timed beside the plan.
_NUM_STEPS = 2
_SECONDS_PER_FILE = 1.0
# Half a confidence interval over its median, from which on no more runs are made.
_MAX_RELATIVE_WIDTH = 0.03
_PLAN, _FULL = "plan", "fp32"

TimesFiles = Callable[[Mapping[str, Path]], dict[str, Interval]]
"""Processor times of files relative to that of the file "plan", by name."""


def placed_by_time(
    network: LoadedNetwork,
    config: ExportConfig,
    recipe: QuantisationRecipe,
    *,
    report: Callable[[str], None],
    times: TimesFiles | None = None,
) -> QuantisationRecipe:
    """Return the kinds of layers to fp32 that win no time in INT8; the plan states all times.

    Args:
        network: The network.
        config: What to make.
        recipe: Result of the search, with at least one layer in INT8.
        report: Takes lines of progress.
        times: Times files; None runs them in the runtime that the file is for.
    """
    plan = recipe.plan
    trace = partial(
        traced_form,
        network,
        form=config.form,
        batch=config.batch,
        opset=opset_of(plan.precision, plan.rest),
    )
    model = trace()
    known = {layer.name: layer for layer in find_layers(model, min_share=0)[0]}
    layers = [known[layer.name] for layer in plan.quantised_layers]
    kinds = kinds_of_layers(model, layers)
    units = in_order_of_noise(
        units_from_layers(layers), {layer.name: layer.noise_db for layer in plan.layers}
    )
    steps = _placements_on_path(plan, units)
    report(
        f"timing INT8 in {config.target.title}: {len(kinds)} kinds of layers, "
        f"{len(steps) + 1} placements"
    )
    placements: dict[str, Collection[str]] = {_PLAN: [layer.name for layer in layers], _FULL: ()}
    placements |= {f"step {i}": names for i, (_, names) in enumerate(steps)}
    for kind, names in kinds.items():
        placements[kind] = set(placements[_PLAN]) - set(names)
    with scratch() as folder:
        measure = times or (lambda files: _cpu_times(files, config))
        export = partial(
            _exported, network, config, recipe, graph=trace(io=config.io, size=config.size)
        )
        paths = {
            name: export(lowered, folder / f"{i}.onnx")
            for i, (name, lowered) in enumerate(placements.items())
        }
        found = measure(paths)
        slow = {kind for kind in kinds if found[kind].value <= 1}
        returned = {name for kind in slow for name in kinds[kind]}
        kept = [name for name in placements[_PLAN] if name not in returned]
        if kept and slow:
            # Two kinds that win nothing one by one may do so together: at their borders values
            # are converted.
            together = export(kept, folder / "together.onnx")
            final = measure({_PLAN: paths[_PLAN], _FULL: paths[_FULL], "without": together})
            if final["without"].value > 1:
                slow, returned = set(), set()
        elif slow:
            slow, returned = set(), set()  # the whole file falls back
    for kind in sorted(slow):
        report(f"{kind}: wins no time in INT8, back to {plan.rest}")
    shares = {layer.name: layer.mult_adds / max(1, plan.mult_adds) for layer in plan.layers}
    timed = replace(
        plan,
        layers=tuple(
            replace(layer, precision=plan.rest) if layer.name in returned else layer
            for layer in plan.layers
        ),
        time_by_kind=tuple(
            TimedKind(
                kind=kind,
                num_layers=len(names),
                mult_adds_share=sum(shares[name] for name in names),
                without=found[kind],
                is_kept=kind not in slow,
            )
            for kind, names in kinds.items()
        ),
        time_by_step=(
            *(
                TimedStep(
                    mult_adds_share=step.mult_adds_share,
                    num_layers=step.num_layers,
                    drift_db=step.drift_db,
                    time=found[f"step {i}"].value / found[_FULL].value,
                )
                for i, (step, _) in enumerate(steps)
            ),
            TimedStep(
                mult_adds_share=plan.mult_adds_share,
                num_layers=len(layers),
                drift_db=plan.held_out_drift_db,
                time=1 / found[_FULL].value,
            ),
        ),
    )
    return replace(recipe, plan=timed)


def kinds_of_layers(model: onnx.ModelProto, layers: Sequence[Layer]) -> dict[str, tuple[str, ...]]:
    """Names of layers by kind, such as "Conv 3x3 depthwise, 320x180"."""
    nodes = {node.name: node for node in model.graph.node}
    dims = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found: dict[str, list[str]] = {}
    for layer in layers:
        shape = dims[layer.weight]
        groups = attribute(nodes[layer.name], "group", 1)
        kernel = "x".join(map(str, shape[2:]))
        grouping = ""
        if groups > 1:
            grouping = "depthwise" if groups == shape[0] or shape[1] == 1 else "grouped"
        positions = round(layer.mult_adds / math.prod(shape))
        words = [word for word in (layer.op_type, kernel, grouping) if word]
        found.setdefault(f"{' '.join(words)}, {positions:,} positions", []).append(layer.name)
    return {kind: tuple(names) for kind, names in found.items()}


def _placements_on_path(
    plan: PrecisionPlan, units: Sequence[Unit]
) -> list[tuple[Step, tuple[str, ...]]]:
    """A few of the placements below the plan whose drift is known, with their layers."""
    found = []
    names: tuple[str, ...] = ()
    mult_adds = 0
    for unit in units[:-1]:
        names += unit.layers
        mult_adds += unit.mult_adds
        share = mult_adds / max(1, plan.mult_adds)
        found += [
            (step, names)
            for step in plan.drift_by_step
            if step.num_layers == len(names) and math.isclose(step.mult_adds_share, share)
        ]
    chosen = sorted(
        {round(i * (len(found) - 1) / max(1, _NUM_STEPS - 1)) for i in range(_NUM_STEPS)}
    )
    return [found[i] for i in chosen] if found else []


def _exported(
    network: LoadedNetwork,
    config: ExportConfig,
    recipe: QuantisationRecipe,
    lowered: Collection[str],
    path: Path,
    *,
    graph: onnx.ModelProto,
) -> Path:
    """Export a network with some layers in INT8, from its graph as it was traced for `config`."""
    plan = replace(
        recipe.plan,
        layers=tuple(
            replace(
                layer,
                precision=recipe.plan.precision if layer.name in lowered else recipe.plan.rest,
            )
            for layer in recipe.plan.layers
        ),
    )
    export_onnx(
        network,
        path,
        precision=config.precision if lowered else "fp32",
        io=config.io,
        size=config.size,
        form=config.form,
        recipe=replace(recipe, plan=plan) if lowered else None,
        batch=config.batch,
        graph=graph,
    )
    return path


def _cpu_times(files: Mapping[str, Path], config: ExportConfig) -> dict[str, Interval]:
    with ExitStack() as stack:
        calls = {
            name: picture_call(
                stack.enter_context(open_runner(config.runtime, path, threads=config.threads)),
                config.size or LATENCY_LR_SIZE,
            )
            for name, path in files.items()
        }
        timings = time_calls(
            calls,
            min_runs=10,
            max_seconds=_SECONDS_PER_FILE * len(calls),
            max_relative_width=_MAX_RELATIVE_WIDTH,
        )
    return {name: cpu_ratio(timing, timings[_PLAN]) for name, timing in timings.items()}
