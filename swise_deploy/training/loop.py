"""The training loop: steps, with logging, validation and saving at intervals."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from swise_deploy.errors import InputError, SwiseError
from swise_deploy.evaluation.metrics import Quality
from swise_deploy.evaluation.pairs import Pair, mean_quality
from swise_deploy.pictures.files import RgbImage
from swise_deploy.storage.files import writing
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.data.batches import (
    Batch,
    BatchStream,
    crop_source,
    cut_crops,
    draw_crops,
)
from swise_deploy.training.data.device_pictures import kept_on_gpu
from swise_deploy.training.data.picture_cache import PicturePairs, open_pairs, with_teacher_sr
from swise_deploy.training.run.display import Display
from swise_deploy.training.run.logbook import Logbook
from swise_deploy.training.run.run_files import (
    read_state,
    rewind_log,
    state_path,
    write_config,
    write_state,
    write_weights,
)
from swise_deploy.training.run.running_means import RunningMeans, Summary
from swise_deploy.training.run.validation import (
    held_out_indices,
    pairs_from_cache,
    pairs_from_folder,
    score_network,
)
from swise_deploy.training.start.teachers import key_of_teachers, upscale_in_windows
from swise_deploy.training.start.trained_form import MakeForm, TrainedForm, plain_form
from swise_deploy.training.state import RunState, TrainResult
from swise_deploy.training.step.optimization import learning_rate_at
from swise_deploy.training.step.precision import resolve_precision
from swise_deploy.training.step.trainer import Trainer, build_network, can_capture, launch_fabric

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
) -> TrainResult | None:
    """Train a network; everything is written to `config.out`.

    Args:
        config: The run.
        resume: Continue the run that `config.out` holds.
        stop: Called after every step; once it returns True the run saves and ends.
        make_form: Makes what is trained for `config.qat`; swise_export.training.qat has one.

    Returns:
        The outcome in the first process; None in the others.

    Raises:
        InputError: Pictures, weights or folder cannot be used.
        DivergedError: Loss or gradients became infinite or NaN; the last good state is kept.
        OutputError: Nothing can be written to `config.out`.
    """
    state = _state_to_resume(config.out, resume=resume)
    if config.qat is None:
        make_form = plain_form
        because = "as this run began" if resume else "as configured"
        precision, reason = resolve_precision(config.precision, config.accelerator, because=because)
    elif make_form is None:
        raise InputError("training for INT8 needs swise_export. Start it as swise-train --qat")
    else:
        precision, reason = "fp32", "INT8 is emulated in it"
    config = dataclasses.replace(config, precision=precision)
    fabric = launch_fabric(config, precision)
    with Display(quiet=not fabric.is_global_zero) as display:
        display.note(f"training in {precision}: {reason}")
        with fabric.rank_zero_first(local=True):
            pictures = open_pairs(
                config.data, config.scale, root=config.cache, report=display.report
            )
        run = _Run(fabric, config, pictures, display, stop, make_form=make_form)
        if state is not None:
            run.restore(state)
        run.train()
        return run.result(reason) if fabric.is_global_zero else None


def _state_to_resume(out: Path, *, resume: bool) -> RunState | None:
    if resume:
        return read_state(out)
    if state_path(out).exists():
        raise InputError(
            f"{out} holds a run already. Continue it with --resume, or choose another --out"
        )
    return None


class _Run:
    """A run in the middle of its steps."""

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        pictures: PicturePairs,
        display: Display,
        stop: Callable[[], bool],
        *,
        make_form: MakeForm,
    ) -> None:
        self._fabric, self._config, self._display, self._stop = fabric, config, display, stop
        network, start = build_network(config)
        if start is not None:
            display.note(f"started with {start.summary(str(config.init), config.scale)}")
        self._form: TrainedForm = make_form(network, config)
        if self._form.note:
            display.note(self._form.note)
        self._pictures = pictures = self._with_teacher_sr(pictures)
        held_out: tuple[int, ...] = ()
        if config.val is None and config.holdout:
            held_out = held_out_indices(pictures, config.holdout, smallest=config.patch_size)
        self._source = crop_source(pictures, config.patch_size, without=held_out)
        self._val_pairs: Sequence[Pair] = ()
        if fabric.is_global_zero:
            self._val_pairs = (
                pairs_from_cache(pictures, held_out, crop=config.val_crop)
                if config.val is None
                else pairs_from_folder(config.val, config.scale, crop=config.val_crop)
            )
        self._on_gpu = kept_on_gpu(pictures, config.patch_size, fabric.device)
        if self._on_gpu is not None:
            display.note("the training pictures are kept in the GPU's memory")
        if config.compile:
            display.note("the first step compiles the network: a minute or more")
        if config.cuda_graph and not can_capture(fabric):
            display.note("cuda_graph is for one GPU: steps are made without it")
        self._trainer = Trainer(fabric, config, self._form, self._on_gpu)
        self._step = 0
        self._best_psnr_y_db: float | None = None
        self._teacher_psnr_y_db: float | None = None
        self._trained_s = 0.0
        self._saved_step: int | None = None
        self._deadline = time.monotonic() + config.max_minutes * 60

    def _with_teacher_sr(self, pictures: PicturePairs) -> PicturePairs:
        """Upscale whole pictures by the teachers once, where that is less work than the crops."""
        config, teacher = self._config, self._form.teacher
        crops_px = config.steps * config.batch_size * config.patch_size**2
        if teacher is None or not config.teacher or crops_px < pictures.lr.pixels.size // 3:
            return pictures
        device = self._fabric.device
        teacher = teacher.eval().to(device)

        def upscale(lr: RgbImage) -> RgbImage:
            if self._stop():
                raise KeyboardInterrupt  # no step was made: there is nothing to save
            return upscale_in_windows(teacher, lr, config.scale, device=device)

        with self._fabric.rank_zero_first(local=True):
            return with_teacher_sr(
                pictures,
                upscale,
                name=key_of_teachers(config.teacher, ensemble=config.teacher_ensemble),
                root=config.cache,
                report=self._display.report,
            )

    def restore(self, state: RunState) -> None:
        """Continue from a saved state."""
        if state.data_key != self._pictures.key:
            raise InputError(
                f"the pictures in {self._config.data} are not those that the run in "
                f"{self._config.out} began with (content {self._pictures.key}, was "
                f"{state.data_key}). Put them back, or start another run with --init "
                f"{self._config.out / 'last.safetensors'}"
            )
        self._trainer.restore(state)
        self._step = self._saved_step = state.step
        self._best_psnr_y_db = state.best_psnr_y_db
        self._trained_s = state.trained_s
        self._display.note(f"resumed at step {state.step}")

    def train(self) -> None:
        """Make the steps that are left."""
        config, fabric = self._config, self._fabric
        if fabric.is_global_zero:
            write_config(config)
            rewind_log(config.out, self._step)
            self._score_teacher()
        stream = BatchStream(self._prepare, first_step=self._step, workers=config.workers)
        fabric.barrier()
        with Logbook(
            config.out,
            first_step=self._step,
            tensorboard=config.tensorboard,
            quiet=not fabric.is_global_zero,
        ) as logbook:
            try:
                self._make_steps(stream, logbook)
            finally:
                stream.close()

    def _prepare(self, step: int) -> Batch | NDArray[np.int64]:
        """The trainer's input for a step: the crops, or their places where the device cuts them."""
        crops = draw_crops(
            self._source,
            seed=self._config.seed,
            step=step,
            batch_size=self._config.batch_size,
            part=self._fabric.global_rank,
            num_parts=self._fabric.world_size,
        )
        return crops if self._on_gpu is not None else cut_crops(self._source, crops)

    def _score_teacher(self) -> None:
        if self._form.teacher is None or not self._val_pairs:
            return
        teacher, student = (
            mean_quality(
                score_network(
                    network, self._val_pairs, self._config.scale, device=self._fabric.device
                )
            ).psnr_y_db
            for network in (self._form.teacher, self._trainer.average.network())
        )
        self._teacher_psnr_y_db = teacher
        self._display.note(
            f"step {self._step}: PSNR-Y {student:.3f} dB, and {teacher:.3f} dB of its teacher"
        )

    def _make_steps(self, stream: Steps, logbook: Logbook) -> None:
        config = self._config
        means = RunningMeans(stream)
        stopping = False
        while self._step < config.steps and not stopping:
            means.add(self._trainer.train_step(stream.next_batch(), self._step))
            self._step += 1
            stopping = self._must_stop()
            due = {
                name: self._step % every == 0 or self._step == config.steps
                for name, every in (
                    ("log", config.log_every),
                    ("save", config.save_every),
                    ("val", config.val_every),
                )
            }
            if stopping or any(due.values()):
                self._log(means.summary(self._fabric), logbook, num_steps=means.num_steps)
                if stopping:
                    self._save()  # before the validation, which may take long
                if stopping or due["val"]:
                    self._validate(logbook)
                if stopping or due["save"]:
                    self._save()
                means.restart()

    def _must_stop(self) -> bool:
        """Tell whether to stop now; all processes get the same answer."""
        alone = self._fabric.world_size == 1
        if not alone and self._step % self._config.log_every:
            return False
        late = bool(self._config.max_minutes) and time.monotonic() > self._deadline
        stopping = late or self._stop()
        return stopping if alone else bool(self._fabric.broadcast(stopping))

    def _log(self, summary: Summary, logbook: Logbook, *, num_steps: int) -> None:
        """Log the means; stop the run where they are not finite."""
        config = self._config
        # Under fp16 a step with infinite gradients is skipped and the loss scale halved: all well.
        gradients_fine = config.precision == "fp16" or math.isfinite(summary.gradient_norm)
        if not (math.isfinite(summary.loss) and gradients_fine):
            logbook.record("event", self._step, {"event": "diverged", "loss": str(summary.loss)})
            raise DivergedError(self._diverged_message(summary, num_steps))
        self._trained_s += summary.seconds
        logbook.record(
            "train",
            self._step,
            {
                "loss": summary.loss,
                "learning_rate": learning_rate_at(config, self._step - 1),
                "gradient_norm": _finite_or_none(summary.gradient_norm),
                "steps_per_s": summary.steps_per_s,
                "data_ms_per_step": summary.data_ms,
                "trained_s": self._trained_s,
            },
        )
        self._display.steps(
            self._step, config.steps, loss=summary.loss, steps_per_s=summary.steps_per_s
        )

    def _diverged_message(self, summary: Summary, num_steps: int) -> str:
        where = (
            f"loss {summary.loss}, gradient norm {summary.gradient_norm} between steps "
            f"{self._step - num_steps + 1} and {self._step}; expected finite numbers"
        )
        advice = "a smaller --learning-rate or --clip-norm, or --precision fp32"
        if self._saved_step is None:
            return f"{where}. No state was saved yet: start again with {advice}"
        return (
            f"{where}. The state of step {self._saved_step} is good and kept in "
            f"{self._config.out}: --resume with {advice}"
        )

    def _validate(self, logbook: Logbook) -> None:
        config = self._config
        if self._val_pairs:
            network = self._trainer.average.network()
            scores = score_network(
                network, self._val_pairs, config.scale, device=self._fabric.device
            )
            mean = mean_quality(scores)
            found = {"psnr_y_db": mean.psnr_y_db, "ssim_y": mean.ssim_y}
            logbook.record("val", self._step, {k: _finite_or_none(v) for k, v in found.items()})
            best = self._best_psnr_y_db is None or mean.psnr_y_db > self._best_psnr_y_db
            mark = ", the best so far" if best else ""
            self._display.note(
                f"step {self._step}: PSNR-Y {mean.psnr_y_db:.3f} dB, SSIM-Y {mean.ssim_y:.4f} on "
                f"{len(scores)} pictures{mark}"
            )
            if best:
                self._best_psnr_y_db = mean.psnr_y_db
                plain = self._form.plain(network)
                write_weights(config.out / "best.safetensors", plain, self._facts(mean))
        self._fabric.barrier()

    def _save(self) -> None:
        if self._fabric.is_global_zero:
            write_state(
                self._config.out,
                self._trainer.snapshot(
                    step=self._step,
                    data_key=self._pictures.key,
                    best_psnr_y_db=self._best_psnr_y_db,
                    trained_s=self._trained_s,
                ),
            )
            write_weights(
                self._config.out / "last.safetensors",
                self._form.plain(self._trainer.average.network()),
                self._facts(None),
            )
        self._saved_step = self._step
        self._fabric.barrier()

    def _facts(self, val: Quality | None) -> dict[str, str]:
        config = self._config
        facts = {
            "model": config.model,
            "option": config.option,
            "upsampler": config.upsampler,
            "scale": str(config.scale),
            "step": str(self._step),
        }
        if val is not None:
            facts["val_psnr_y_db"] = f"{val.psnr_y_db:.4f}"
        return facts

    def result(self, precision_reason: str) -> TrainResult:
        """The outcome, with the weights to deploy under their own name."""
        config = self._config
        found = "last" if self._best_psnr_y_db is None else "best"
        source = config.out / f"{found}.safetensors"
        weights = config.out / f"{config.model}_x{config.scale}.safetensors"
        with writing(weights) as temporary:
            temporary.write_bytes(source.read_bytes())
        best, teacher = self._best_psnr_y_db, self._teacher_psnr_y_db
        if self._form.finish is not None:
            self._form.finish(weights, None if best is None or teacher is None else best - teacher)
        too_small = f"no crop of {config.patch_size} LR pixels fits in"
        return TrainResult(
            config=config,
            step=self._step,
            weights=weights,
            best_psnr_y_db=self._best_psnr_y_db,
            trained_s=self._trained_s,
            num_pictures=len(self._source.indices),
            num_validation=len(self._val_pairs),
            skipped={
                **self._pictures.skipped,
                **dict.fromkeys(self._source.too_small, too_small),
            },
            data_key=self._pictures.key,
            precision_reason=precision_reason,
        )


def _finite_or_none(value: float) -> float | None:
    """A number that JSON has, or None."""
    return value if math.isfinite(value) else None
