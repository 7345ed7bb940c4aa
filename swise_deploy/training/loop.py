"""The training loop: steps, with logging, validation and saving at intervals."""

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from swise_deploy.errors import InputError, SwiseError, first_line
from swise_deploy.storage.files import writing
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.data.batches import (
    Batch,
    BatchStream,
    CropDegradation,
    cut_crops,
    cut_degraded_crops,
    draw_crops,
)
from swise_deploy.training.data.degradation import read_degradation
from swise_deploy.training.data.picture_cache import PicturePairs, open_pairs
from swise_deploy.training.run.display import Display
from swise_deploy.training.run.logbook import Logbook
from swise_deploy.training.run.paths import check_paths
from swise_deploy.training.run.preparation import Preparation, prepare
from swise_deploy.training.run.run_files import (
    drop_old_weights,
    read_state,
    rewind_log,
    run_lock,
    state_path,
    write_config,
    write_state,
    write_weights,
)
from swise_deploy.training.run.running_means import RunningMeans, Summary
from swise_deploy.training.run.validation import ValidationScores, validate
from swise_deploy.training.start.trained_form import MakeForm
from swise_deploy.training.state import BestValidation, RunProgress, RunState, TrainResult
from swise_deploy.training.step.optimization import learning_rate_at
from swise_deploy.training.step.precision import resolve_precision
from swise_deploy.training.step.trainer import Trainer, can_capture, launch_fabric

Steps = BatchStream[Batch | NDArray[np.int64]]
"""The trainer's inputs in the order of the steps."""


class DivergedError(SwiseError):
    """Loss or gradients are no longer finite."""


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    make_form: MakeForm | None = None,
    while_training: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> TrainResult | None:
    """Train a network; everything is written to `config.out`.

    Args:
        config: The run.
        resume: Continue the run that `config.out` holds.
        stop: Called after every step; once it returns True the run saves and ends.
        make_form: Makes the trained form for `config.qat`; swise_export.training.qat has one.
        while_training: Entered while steps are made, when a signal need not interrupt at once.

    Returns:
        The outcome in the first process; None in the others.

    Raises:
        InputError: Pictures, weights or folder cannot be used, or another run writes to the folder.
        DivergedError: Loss or gradients became infinite or NaN; the last good state is kept.
        OutputError: Nothing can be written to `config.out`.
    """
    check_paths(config, resume=resume)
    if config.qat is not None and make_form is None:
        raise InputError("training for INT8 needs swise_export. Start it as swise-train --qat")
    with run_lock(config.out):
        state = _state_to_resume(config, resume=resume)
        if config.qat is None:
            because = "as this run began" if resume else "as configured"
            precision, reason = resolve_precision(
                config.precision, config.accelerator, because=because
            )
        else:
            precision, reason = "fp32", "INT8 is emulated in it"
        config = dataclasses.replace(config, precision=precision)
        fabric = launch_fabric(config, precision)
        with Display(quiet=not fabric.is_global_zero) as display:
            display.note(f"training in {precision}: {reason}")
            with fabric.rank_zero_first(local=True):
                pictures = open_pairs(
                    config.data_folders,
                    config.scale,
                    lr_folders=config.lr,
                    shrink=not config.degradation,
                    root=config.cache,
                    report=display.report,
                )
            _refuse_other_pictures(config, state, pictures)
            prepared = prepare(
                fabric, config, pictures, state, make_form=make_form, display=display, stop=stop
            )
            run = _Run(fabric, config, prepared, display, stop)
            if state is not None:
                run.restore(state)
            with while_training(), _lost_process_named(fabric, config):
                run.train()
            return run.result(reason) if fabric.is_global_zero else None


@contextlib.contextmanager
def _lost_process_named(fabric: Fabric, config: TrainConfig) -> Iterator[None]:
    """Turn what gloo and NCCL raise when another process of the run is gone into one message."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or _LOST.search(str(error))
        if fabric.world_size == 1 or not lost:
            raise
        raise SwiseError(
            f"another process of the run is gone: {first_line(error)[:200]}. Start all "
            f"{fabric.world_size} again with --resume -o {config.out}"
        ) from error


_LOST = re.compile(r"gloo|nccl|connection (?:reset|closed)", re.IGNORECASE)


def _state_to_resume(config: TrainConfig, *, resume: bool) -> RunState | None:
    if resume:
        return read_state(config.out)
    if state_path(config.out).exists():
        raise InputError(
            f"{config.out} holds a run already. Continue it with --resume, "
            "or choose another --output"
        )
    return None


def _refuse_other_pictures(
    config: TrainConfig, state: RunState | None, pictures: PicturePairs
) -> None:
    if state is not None and state.progress.data_key != pictures.key:
        raise InputError(
            f"the pictures in {', '.join(map(str, config.data_folders))} are not those that the "
            f"run in {config.out} began with (content {pictures.key}, was "
            f"{state.progress.data_key}). Put them back, or start another run with --init "
            f"{config.out / 'last.safetensors'}"
        )


class _Run:
    """A run in the middle of its steps."""

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        prepared: Preparation,
        display: Display,
        stop: Callable[[], bool],
    ) -> None:
        self._fabric, self._config, self._display, self._stop = fabric, config, display, stop
        self._prepared, self._form = prepared, prepared.form
        self._source, self._val_pairs = prepared.source, prepared.val_pairs
        self._degradation = read_degradation(config.degradation) if config.degradation else None
        if config.compile:
            display.note("the first step compiles the network: a minute or more")
        if config.cuda_graph and not can_capture(fabric):
            display.note("cuda_graph is for one GPU: steps are made without it")
        self._trainer = Trainer(fabric, config, self._form, prepared.on_gpu)
        self._progress = RunProgress(
            step=0, data_key=prepared.source.pairs.key, teacher_key=prepared.teacher_key
        )
        self._teacher_psnr_y_db: float | None = None
        self._saved_step: int | None = None
        self._ended_early = False
        self._deadline = time.monotonic() + config.max_minutes * 60

    def restore(self, state: RunState) -> None:
        """Continue from a saved state."""
        self._trainer.restore(state)
        self._progress = state.progress
        self._saved_step = state.progress.step
        self._display.note(f"resumed at step {state.progress.step}")

    def train(self) -> None:
        """Make the steps that are left."""
        config, fabric = self._config, self._fabric
        step = self._progress.step
        if fabric.is_global_zero:
            write_config(config)
            rewind_log(config.out, step)
            if step == 0:
                self._score_teacher()
        stream = BatchStream(self._prepare, first_step=step, workers=config.workers)
        fabric.barrier()
        with Logbook(config, first_step=step, quiet=not fabric.is_global_zero) as logbook:
            try:
                if self._progress.validation_due:
                    self._validate(logbook)
                    self._save()
                self._make_steps(stream, logbook)
            finally:
                stream.close()

    def _prepare(self, step: int) -> Batch | NDArray[np.int64]:
        """The trainer's input for a step: the crops, or their places where the device cuts them."""
        config, fabric = self._config, self._fabric
        crops = draw_crops(
            self._source,
            seed=config.seed,
            step=step,
            batch_size=config.batch_size,
            part=fabric.global_rank,
            num_parts=fabric.world_size,
        )
        if self._prepared.on_gpu is not None:
            return crops
        if self._degradation is None:
            return cut_crops(self._source, crops)
        first = fabric.global_rank * len(crops)
        how = CropDegradation(self._degradation, config.seed, step, first)
        return cut_degraded_crops(self._source, crops, how)

    def _score_teacher(self) -> None:
        if self._form.teacher is None or not self._val_pairs:
            return
        found = []
        for network in (self._form.teacher, self._trainer.average.network()):
            scores = validate(
                network, self._val_pairs, self._config.scale, device=self._fabric.device
            )
            assert scores is not None, "nothing stops it"
            found.append(scores.mean.psnr_y_db)
        self._teacher_psnr_y_db, student = found
        self._display.note(
            f"step {self._progress.step}: PSNR-Y {student:.3f} dB, and "
            f"{self._teacher_psnr_y_db:.3f} dB of its teacher"
        )

    def _make_steps(self, stream: Steps, logbook: Logbook) -> None:
        config = self._config
        means = RunningMeans(stream)
        stopping = False
        while self._progress.step < config.steps and not stopping and not self._ended_early:
            means.add(self._trainer.train_step(stream.next_batch(), self._progress.step))
            step = self._progress.step + 1
            self._progress = dataclasses.replace(self._progress, step=step)
            stopping = self._must_stop()
            due = {
                name: step % every == 0 or step == config.steps
                for name, every in (
                    ("log", config.log_every),
                    ("save", config.save_every),
                    ("val", config.val_every),
                )
            }
            if stopping or any(due.values()):
                self._log(means.summary(self._fabric), logbook, num_steps=means.num_steps)
                if due["val"]:
                    self._validate(logbook, skip=stopping)
                    stopping = stopping or self._progress.validation_due
                if stopping or due["save"] or self._ended_early:
                    self._save()
                means.restart()

    def _must_stop(self) -> bool:
        """Tell whether to stop now; all processes get the same answer."""
        alone = self._fabric.world_size == 1
        if not alone and self._progress.step % self._config.log_every:
            return False
        late = bool(self._config.max_minutes) and time.monotonic() > self._deadline
        stopping = late or self._stop()
        if alone:
            return stopping
        number = torch.tensor(float(stopping), device=self._fabric.device)
        total = self._fabric.all_reduce(number, reduce_op="sum")  # whichever got the signal
        assert isinstance(total, torch.Tensor)
        return bool(total.item())

    def _log(self, summary: Summary, logbook: Logbook, *, num_steps: int) -> None:
        """Log the means; stop the run where they are not finite."""
        config, step = self._config, self._progress.step
        # Under fp16 a step with infinite gradients is skipped and the loss scale halved: all well.
        gradients_fine = config.precision == "fp16" or math.isfinite(summary.gradient_norm)
        if not (math.isfinite(summary.loss) and gradients_fine):
            logbook.record("event", step, {"event": "diverged", "loss": str(summary.loss)})
            raise DivergedError(self._diverged_message(summary, num_steps))
        trained_s = self._progress.trained_s + summary.seconds
        self._progress = dataclasses.replace(self._progress, trained_s=trained_s)
        logbook.record(
            "train",
            step,
            {
                "loss": summary.loss,
                "learning_rate": learning_rate_at(config, step - 1),
                "gradient_norm": _finite_or_none(summary.gradient_norm),
                "steps_per_s": summary.steps_per_s,
                "data_ms_per_step": summary.data_ms,
                "trained_s": trained_s,
            },
        )
        self._display.steps(
            step,
            config.steps,
            loss=summary.loss,
            steps_per_s=summary.steps_per_s,
            data_ms=summary.data_ms,
        )

    def _diverged_message(self, summary: Summary, num_steps: int) -> str:
        step = self._progress.step
        where = (
            f"loss {summary.loss}, gradient norm {summary.gradient_norm} between steps "
            f"{step - num_steps + 1} and {step}; expected finite numbers"
        )
        advice = "a smaller --learning-rate or --clip-norm, or --precision fp32"
        if self._saved_step is None:
            return f"{where}. No state was saved yet: start again with {advice}"
        return (
            f"{where}. The state of step {self._saved_step} is good and kept in "
            f"{self._config.out}: --resume with {advice}"
        )

    def _validate(self, logbook: Logbook, *, skip: bool = False) -> None:
        """Score the averaged weights and keep the best.

        A run that is to stop does not wait for it: the resumed run makes it up.
        """
        config, fabric = self._config, self._fabric
        interrupted = skip
        if self._val_pairs and not interrupted:
            network = self._trainer.average.network()
            scores = validate(
                network, self._val_pairs, config.scale, device=fabric.device, stop=self._stop
            )
            interrupted = scores is None
            if scores is not None:
                self._take_scores(scores, network, logbook)
        due = interrupted and bool(self._val_pairs)
        if fabric.world_size > 1:
            due, self._ended_early = fabric.broadcast((due, self._ended_early))
        self._progress = dataclasses.replace(self._progress, validation_due=due)

    def _take_scores(
        self, scores: ValidationScores, network: torch.nn.Module, logbook: Logbook
    ) -> None:
        config, progress = self._config, self._progress
        found = {
            "psnr_y_db": scores.mean.psnr_y_db,
            "ssim_y": _finite_or_none(scores.mean.ssim_y),
            "psnr_rgb_db": scores.psnr_rgb_db,
        }
        logbook.record("val", progress.step, found)
        is_best = progress.best is None or scores.choice_db > progress.best.choice_db
        self._display.note(
            f"step {progress.step}: PSNR-Y {scores.mean.psnr_y_db:.3f} dB, SSIM-Y "
            f"{scores.mean.ssim_y:.4f}, PSNR-RGB {scores.psnr_rgb_db:.3f} dB on "
            f"{scores.num_pictures} picture{'s' if scores.num_pictures > 1 else ''}"
            f"{', the best so far' if is_best else ''}"
        )
        plain = self._prepared.saved(self._form.plain(network))
        facts = {**self._facts(), "val_psnr_y_db": f"{scores.mean.psnr_y_db:.4f}"}
        if config.keep:
            write_weights(config.out / f"step_{progress.step}.safetensors", plain, facts)
            drop_old_weights(config.out, keep=config.keep)
        if is_best:
            best = BestValidation(scores.choice_db, scores.mean.psnr_y_db, progress.step)
            self._progress = dataclasses.replace(progress, best=best, worse_validations=0)
            write_weights(config.out / "best.safetensors", plain, facts)
            return
        worse = progress.worse_validations + 1
        self._progress = dataclasses.replace(progress, worse_validations=worse)
        if config.patience and worse >= config.patience:
            self._ended_early = True
            self._display.note(f"ended early: {worse} validations in a row were no better")

    def _save(self) -> None:
        if self._fabric.is_global_zero:
            write_state(self._config.out, self._trainer.snapshot(self._progress))
            plain = self._form.plain(self._trainer.average.network())
            write_weights(
                self._config.out / "last.safetensors", self._prepared.saved(plain), self._facts()
            )
        self._saved_step = self._progress.step
        self._fabric.barrier()

    def _facts(self) -> dict[str, str]:
        config = self._config
        return {
            "model": config.model,
            "option": config.option,
            "upsampler": config.upsampler,
            "scale": str(config.scale),
            "step": str(self._progress.step),
        }

    def result(self, precision_reason: str) -> TrainResult:
        """The outcome, with the weights to deploy under their own name."""
        config, best, teacher = self._config, self._progress.best, self._teacher_psnr_y_db
        source = config.out / f"{'last' if best is None else 'best'}.safetensors"
        weights = config.out / f"{self._prepared.name}_x{config.scale}.safetensors"
        with writing(weights) as temporary:
            temporary.write_bytes(source.read_bytes())
        if self._form.finish is not None:
            won = None if best is None or teacher is None else best.psnr_y_db - teacher
            self._form.finish(weights, won)
        too_small = f"no crop of {config.patch_size} LR pixels fits in"
        return TrainResult(
            config=config,
            name=self._prepared.name,
            step=self._progress.step,
            finished=(self._ended_early or self._progress.step >= config.steps)
            and not self._progress.validation_due,
            weights=weights,
            best_psnr_y_db=None if best is None else best.psnr_y_db,
            trained_s=self._progress.trained_s,
            num_pictures=len(self._source.indices),
            num_validation=len(self._val_pairs),
            skipped={
                **self._source.pairs.skipped,
                **dict.fromkeys(self._source.too_small, too_small),
            },
            data_key=self._progress.data_key,
            precision_reason=precision_reason,
        )


def _finite_or_none(value: float) -> float | None:
    """A number that JSON has, or None."""
    return value if math.isfinite(value) else None
