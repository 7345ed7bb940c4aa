"""A graph in stages: its outer layers, which cost next to nothing, and the network between them.

Features bear rounding to bf16, pictures do not: its 8 bits of mantissa represent values above half
of white in steps of a whole 8-bit value. Networks read pictures in their first layers, and many add
what they compute to an interpolated picture. docs/precision.md has what that costs.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx

from swise_export.graph.subgraphs import names_read

# The outer layers may have this share of the Mult-Adds. A layer in fp32 takes about twice its time
# in bf16, so that they cost at most half of it in time.
_MAX_SHARE = 0.05
# A layer of a smaller share adds a mean or converts colours.
_MIN_SHARE = 1e-4
_SHAPES = frozenset({"Shape", "Size"})
# Operators that runtimes compute with the layer in front of them.
_ACTIVATIONS = frozenset({"Clip", "LeakyRelu", "PRelu", "Relu"})


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a graph that runs as a whole.

    Attributes:
        inputs: Tensors that it reads: inputs of the graph and outputs of earlier stages.
        outputs: Tensors that later stages read, or the outputs of the graph.
        is_outer: True for outer layers, which should keep their precision.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    is_outer: bool


def find_stages(model: onnx.ModelProto, mult_adds: Mapping[str, int]) -> tuple[Stage, ...]:
    """Split a graph into its first layers, the network and its last layers.

    Outer layers are taken as long as they have at most 5% of the Mult-Adds together: whole branches
    between the input and the last sums, then layers that read pictures, then, where no picture is
    added, those behind which only arithmetic follows. A graph without any is one stage.

    Args:
        model: The model.
        mult_adds: Mult-Adds of the layers, by `LayerCounts.name`.
    """
    return _Graph(model, mult_adds).stages()


class _Graph:
    """Nodes that compute on pictures, by their numbers, and what they read of each other.

    Constants and arithmetic on shapes belong to every stage that needs them.
    """

    def __init__(self, model: onnx.ModelProto, mult_adds: Mapping[str, int]) -> None:
        nodes = model.graph.node
        stored = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [v.name for v in model.graph.input if v.name not in stored]
        self._outputs = tuple(value.name for value in model.graph.output)
        self._costs = [mult_adds.get(node.name or node.output[0], 0) for node in nodes]
        self._total = sum(mult_adds.values())
        self._is_activation = [node.op_type in _ACTIVATIONS for node in nodes]
        self._producers: dict[str, int] = {}
        self._reads: dict[int, tuple[str, ...]] = {}
        # For constants and arithmetic on shapes, the tensors whose shapes they depend on.
        free: dict[str, frozenset[str]] = dict.fromkeys(stored, frozenset())
        data = set(self._inputs)
        for i, node in enumerate(nodes):
            names = list(names_read(node))
            found = [free.get(name, frozenset({name})) for name in names]
            reads = frozenset[str]().union(*found)
            if node.op_type in _SHAPES or data.isdisjoint(names):
                free.update(dict.fromkeys(node.output, reads))
                continue
            data.update(node.output)
            self._producers.update((name, i) for name in node.output if name)
            self._reads[i] = tuple(sorted(reads & data))
        self._readers: dict[str, set[int]] = {}
        for i, names_of_node in self._reads.items():
            for name in names_of_node:
                self._readers.setdefault(name, set()).add(i)

    def stages(self) -> tuple[Stage, ...]:
        last = self._last_arithmetic()
        spent = sum(self._costs[i] for i in last)
        first: set[int] = set()
        branches = [self._ancestors(name) for name in self._read_by(last)]
        for branch in sorted(branches, key=len):
            spent += self._taken(branch - first, first, spent)
        last -= first
        adds_picture = bool(first) or self._reads_input(last)
        for i in self._first_layers(first, last):
            spent += self._taken({i}, first, spent)
        first |= self._activations_behind(first)
        # What is added to a picture is small, and so is its rounding.
        for i in [] if adds_picture else self._last_layers(last, first):
            spent += self._taken({i}, last, spent)
        is_chain = not any(self._costs[i] for i in last) and first.isdisjoint(
            self._producers[name] for name in self._read_by(last) if name in self._producers
        )
        if is_chain and not self._reads_input(last):
            last = set()
        middle = set(self._reads) - first - last
        stages = [
            Stage(self._read_by(part), self._written_by(part), is_outer)
            for part, is_outer in ((first, True), (middle, False), (last, True))
            if part
        ]
        return tuple(stages)

    def _taken(self, nodes: Collection[int], stage: set[int], spent: int) -> int:
        """Add nodes to a stage if the outer layers' share allows it; returns their Mult-Adds."""
        cost = sum(self._costs[i] for i in nodes)
        if spent + cost > _MAX_SHARE * self._total:
            return 0
        stage.update(nodes)
        return cost

    def _last_arithmetic(self) -> set[int]:
        """Nodes behind the last layers, conversions included."""
        found: set[int] = set()
        for i in reversed(self._reads):
            is_small = self._costs[i] <= _MIN_SHARE * self._total
            if is_small and self._has_readers_in(found, i):
                found.add(i)
        return found

    def _first_layers(self, first: Collection[int], last: Collection[int]) -> Iterator[int]:
        """Nodes that read pictures: the input, or what conversions and branches make of it."""
        pictures = {*self._inputs, *self._outputs_of(first)}
        for i, names in self._reads.items():
            if i in first or i in last or not pictures.issuperset(names):
                continue
            yield i
            if self._costs[i] <= _MIN_SHARE * self._total:
                pictures.update(self._outputs_of([i]))

    def _activations_behind(self, first: Collection[int]) -> set[int]:
        known = set(self._outputs_of(first))
        return {
            i
            for i, names in self._reads.items()
            if self._is_activation[i] and known.issuperset(names)
        }

    def _last_layers(self, last: Collection[int], first: Collection[int]) -> list[int]:
        """Layers that only the last arithmetic reads."""
        producers = {self._producers[n] for n in self._read_by(last) if n in self._producers}
        return [
            i
            for i in sorted(producers - set(first))
            if self._costs[i] and self._has_readers_in(last, i)
        ]

    def _has_readers_in(self, nodes: Collection[int], i: int) -> bool:
        readers = [r for name in self._outputs_of([i]) for r in self._readers.get(name, ())]
        is_output = any(name in self._outputs for name in self._outputs_of([i]))
        return (bool(readers) or is_output) and all(reader in nodes for reader in readers)

    def _reads_input(self, nodes: Collection[int]) -> bool:
        return any(name in self._inputs for name in self._read_by(nodes))

    def _read_by(self, nodes: Collection[int]) -> tuple[str, ...]:
        """Tensors that some nodes read and that others compute."""
        inside = set(nodes)
        names = {name for i in inside for name in self._reads[i]}
        return tuple(sorted(n for n in names if self._producers.get(n) not in inside))

    def _written_by(self, nodes: Collection[int]) -> tuple[str, ...]:
        """Tensors that some nodes compute and that others read, or outputs of the graph."""
        inside = set(nodes)
        return tuple(
            name
            for name in self._outputs_of(inside)
            if name in self._outputs or not inside.issuperset(self._readers.get(name, ()))
        )

    def _outputs_of(self, nodes: Collection[int]) -> list[str]:
        return [name for name, i in self._producers.items() if i in nodes]

    def _ancestors(self, name: str) -> set[int]:
        """Nodes that a tensor depends on."""
        found: set[int] = set()
        pending = [self._producers[name]] if name in self._producers else []
        while pending:
            i = pending.pop()
            if i not in found:
                found.add(i)
                pending.extend(self._producers[n] for n in self._reads[i] if n in self._producers)
        return found
