"""Steps per second of swise-train against the loop that one would write without it.

    python bench/scripts/train_speed.py --data DIR [--recipe gpu | --config FILE] [--json]

The plain loop: fp32, NCHW, torch's Adam, crops cut in the training thread, and nothing else.
swise-train clips gradients and averages weights besides. Each loop is a process of its own, and
they take their steps in turn, so that other programs slow all of them alike; a ratio is the median
over the rounds.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from swise_deploy.command.console import progress, run_command
from swise_deploy.errors import SwiseError
from swise_deploy.timing import ratio, time_calls
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.data.batches import (
    Batch,
    BatchStream,
    CropSource,
    crop_source,
    cut_crops,
    draw_crops,
)
from swise_deploy.training.data.device_pictures import kept_on_gpu
from swise_deploy.training.data.picture_cache import open_pairs
from swise_deploy.training.settings import (
    config_from_layers,
    recipe_text,
    settings_from_file,
    settings_from_toml,
)
from swise_deploy.training.start.trained_form import plain_form
from swise_deploy.training.step.allocator import keep_freed_memory
from swise_deploy.training.step.network import build_network
from swise_deploy.training.step.precision import resolve_precision
from swise_deploy.training.step.trainer import Trainer, launch_fabric

PLAIN = "plain fp32 NCHW loop"


@dataclass(frozen=True, slots=True)
class TrainSpeedConfig:
    """One comparison of training loops.

    Attributes:
        training: Settings of the training.
        max_seconds: Time of the counted steps, all loops together.
        with_variants: Whether swise-train without its single accelerations is timed too.
        with_compile: Whether torch.compile is timed too.
        as_json: Whether a document goes to stdout instead of a table.
    """

    training: TrainConfig
    max_seconds: float
    with_variants: bool
    with_compile: bool
    as_json: bool


def main() -> int:
    """Time the loops and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--recipe", default="quick-cpu")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, not --recipe's")
    parser.add_argument("--model", default=None)
    parser.add_argument("--scale", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--patch-size", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for counted steps")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--alone", action="store_true", help="no variants of swise-train")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    return run_command(
        lambda: _run(
            TrainSpeedConfig(
                training=_training(
                    options.config,
                    options.recipe,
                    data=options.data,
                    model=options.model,
                    scale=options.scale,
                    batch_size=options.batch_size,
                    patch_size=options.patch_size,
                    cache=options.cache,
                ),
                max_seconds=options.seconds,
                with_variants=not options.alone,
                with_compile=options.compile,
                as_json=options.json,
            )
        )
    )


def _run(comparison: TrainSpeedConfig) -> int:
    config = comparison.training
    precision, reason = resolve_precision(config.precision, config.accelerator)
    progress(f"precision {precision}: {reason}")
    config = dataclasses.replace(config, precision=precision)
    _crop_source(config)  # fills the cache, for the processes to open
    variants = {PLAIN: config, "swise-train": config}
    if comparison.with_variants:
        variants |= _variants(config, with_compile=comparison.with_compile)
    # As swise-train does, before a process loads torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with ExitStack() as loops:
        calls = {
            name: loops.enter_context(_loop_in_a_process(variant, plain=name == PLAIN))
            for name, variant in variants.items()
        }
        timings = time_calls(calls, min_runs=10, max_seconds=comparison.max_seconds)
    rows = []
    for name, timing in timings.items():
        gain = ratio(timings[PLAIN], timing)
        rows.append(
            {
                "loop": name,
                "step_ms": timing.p50_ms,
                "steps_per_s": 1000 / timing.p50_ms,
                "times_plain": gain.value,
                "low": gain.low,
                "high": gain.high,
                "rounds": len(timing.samples_ms),
            }
        )
    facts = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": f"{config.model} x{config.scale}",
        "batch": config.batch_size,
        "patch": config.patch_size,
        "precision": precision,
        "optimizer": config.optimizer,
    }
    if comparison.as_json:
        sys.stdout.write(json.dumps({**facts, "loops": rows}, indent=2) + "\n")
        return 0
    sys.stdout.write(", ".join(f"{k} {v}" for k, v in facts.items()) + "\n\n")
    sys.stdout.write("| loop | step/s | times the plain loop (95 % interval) | rounds |\n")
    sys.stdout.write("|---|---|---|---|\n")
    for row in rows:
        sys.stdout.write(
            f"| {row['loop']} | {row['steps_per_s']:.3g} | {row['times_plain']:.2f} "
            f"({row['low']:.2f} to {row['high']:.2f}) | {row['rounds']} |\n"
        )
    return 0


def _variants(config: TrainConfig, *, with_compile: bool) -> dict[str, TrainConfig]:
    variants = {}
    if config.channels_last:
        variants["--no-channels-last"] = dataclasses.replace(config, channels_last=False)
    if config.cuda_graph:
        variants["--no-cuda-graph"] = dataclasses.replace(config, cuda_graph=False)
    if with_compile:
        variants["--compile"] = dataclasses.replace(config, compile=True)
    return {f"swise-train {flag}": variant for flag, variant in variants.items()}


def _training(file: Path | None, recipe: str, **flags: object) -> TrainConfig:
    """Settings from a file or a recipe, under the flags that were given."""
    if file is not None:
        settings = settings_from_file(file)
    else:
        settings = settings_from_toml(recipe_text(recipe), source=recipe)
    given = {name: value for name, value in flags.items() if value is not None}
    given["out"] = Path(tempfile.gettempdir())  # nothing is written
    return config_from_layers({str(file or recipe): settings, "flags": given})


@contextmanager
def _loop_in_a_process(config: TrainConfig, *, plain: bool) -> Iterator[Callable[[], object]]:
    """A process that trains one step per call; it ends with the context."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve_steps, args=(config, there), kwargs={"plain": plain})
    with _ctrl_c_ignored():  # inherited by the process, which ends when the pipe closes
        process.start()
    there.close()

    def step() -> object:
        try:
            here.send(None)
            return here.recv()
        except (EOFError, ConnectionError) as error:
            raise SwiseError("the process of a training loop failed; its error is above") from error

    try:
        yield step
    finally:
        here.close()
        process.join()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve_steps(config: TrainConfig, calls: Connection, *, plain: bool) -> None:
    if not plain:
        keep_freed_memory()
    source = _crop_source(config)
    step = _plain_step(config, source) if plain else _swise_step(config, source)
    with suppress(EOFError, ConnectionError):
        while True:
            calls.recv()
            calls.send(step())


def _crop_source(config: TrainConfig) -> CropSource:
    pairs = open_pairs(
        config.data_folders,
        config.scale,
        root=config.cache,
        report=lambda _what, _done, _total: None,
    )
    return crop_source(pairs, config.patch_size)


def _plain_step(config: TrainConfig, source: CropSource) -> Callable[[], object]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build_network(dataclasses.replace(config, weight_norm=())).module.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    steps = iter(range(2**62))

    def step() -> float:
        batch = cut_crops(source, _crops(config, source, next(steps)))
        lr, hr = (
            torch.from_numpy(picture).to(device).permute(0, 3, 1, 2).contiguous().float() / 255
            for picture in (batch.lr, batch.hr)
        )
        loss = F.l1_loss(network(lr), hr)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    return step


def _crops(config: TrainConfig, source: CropSource, step: int) -> NDArray[np.int64]:
    return draw_crops(source, seed=config.seed, step=step, batch_size=config.batch_size)


def _swise_step(config: TrainConfig, source: CropSource) -> Callable[[], object]:
    precision, _ = resolve_precision(config.precision, config.accelerator)
    fabric = launch_fabric(config, precision)
    pictures = kept_on_gpu(source.pairs, config.patch_size, fabric.device)
    trainer = Trainer(fabric, config, plain_form(build_network(config).module, config), pictures)

    def prepare(step: int) -> Batch | NDArray[np.int64]:
        crops = _crops(config, source, step)
        return crops if pictures is not None else cut_crops(source, crops)

    stream = BatchStream(prepare, first_step=0, workers=config.workers)
    steps = iter(range(2**62))

    def step() -> float:
        # item() waits for the device: a call has to end when its work is done.
        return trainer.train_step(stream.next_batch(), next(steps)).loss.item()

    return step


def _cpu_name() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.processor() or platform.machine()} CPU with {capability}"


if __name__ == "__main__":
    sys.exit(main())
