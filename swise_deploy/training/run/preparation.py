"""Everything that a run has before its first step: network, teachers, pictures, validation."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lightning_fabric import Fabric
from torch import nn

from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import Pair
from swise_deploy.pictures.files import RgbImage
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.data.batches import CropSource, crop_source
from swise_deploy.training.data.degradation import read_degradation
from swise_deploy.training.data.device_pictures import DevicePictures, kept_on_gpu
from swise_deploy.training.data.picture_cache import (
    PicturePairs,
    with_cached_teacher_sr,
    with_teacher_sr,
)
from swise_deploy.training.run.display import Display
from swise_deploy.training.run.overlap import crops_of_same_pictures
from swise_deploy.training.run.validation import (
    degraded_pairs,
    held_out_indices,
    indices_of_same_content,
    pairs_from_cache,
    pairs_from_folder,
    without_flat_pictures,
)
from swise_deploy.training.start.teachers import key_of_teachers, upscale_in_windows
from swise_deploy.training.start.trained_form import MakeForm, TrainedForm, plain_form
from swise_deploy.training.state import RunState
from swise_deploy.training.step.network import build_network

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preparation:
    """A run before its first step.

    Attributes:
        form: The network as it is trained.
        name: The network's name in file names.
        saved: Gives of a plain network the module whose weights are saved.
        source: The pictures that crops are drawn from.
        val_pairs: Validation pictures; empty in all processes but the first.
        on_gpu: The pictures in the GPU's memory; None where crops are cut on the CPU.
        teacher_key: Content of the teachers' weights; empty without teachers.
    """

    form: TrainedForm
    name: str
    saved: Callable[[nn.Module], nn.Module]
    source: CropSource
    val_pairs: Sequence[Pair]
    on_gpu: DevicePictures | None
    teacher_key: str


def prepare(
    fabric: Fabric,
    config: TrainConfig,
    pictures: PicturePairs,
    state: RunState | None,
    *,
    make_form: MakeForm | None,
    display: Display,
    stop: Callable[[], bool],
) -> Preparation:
    """Build the network, open the teachers, and divide the pictures.

    Args:
        fabric: Launched.
        config: The run.
        pictures: From `open_pairs`.
        state: Of the run that is resumed; its weights replace those of `config.init`.
        make_form: Makes the trained form for `config.qat`.
        display: Receives notes and progress.
        stop: Ends the upscaling by teachers once it returns True.

    Raises:
        InputError: Weights, teachers or pictures cannot be used.
    """
    with_init = state is None or config.qat is not None
    start = build_network(config, with_init=with_init)
    if start.note:
        display.note(f"started with {start.note}")
    if config.qat is None:
        form, pictures, teacher_key = _with_teachers(
            fabric, config, start.module, pictures, state, display=display, stop=stop
        )
    else:
        assert make_form is not None, "checked by train()"
        form, teacher_key = make_form(start.module, config), ""
    if form.note:
        display.note(form.note)
    source, val_pairs = _divided(fabric, config, pictures)
    on_gpu = None if config.degradation else kept_on_gpu(pictures, config.patch_size, fabric.device)
    if on_gpu is not None:
        display.note("the training pictures are kept in the GPU's memory")
    return Preparation(form, start.name, start.saved, source, val_pairs, on_gpu, teacher_key)


def _with_teachers(
    fabric: Fabric,
    config: TrainConfig,
    network: nn.Module,
    pictures: PicturePairs,
    state: RunState | None,
    *,
    display: Display,
    stop: Callable[[], bool],
) -> tuple[TrainedForm, PicturePairs, str]:
    """The form of a network with its teachers, whose files are not needed once all is cached."""
    if not config.teacher:
        return plain_form(network, config), pictures, ""
    stored = state.progress.teacher_key if state is not None else ""
    present = all(file.is_file() for file in config.teacher)
    key = stored
    if present or not stored:
        key = key_of_teachers(config.teacher, ensemble=config.teacher_ensemble)
    if stored and key != stored:
        names = ", ".join(map(str, config.teacher))
        raise InputError(
            f"the weights in {names} are not those that the run in {config.out} learns from. "
            "Give the same files with --teacher"
        )
    if stored:
        cached = with_cached_teacher_sr(pictures, name=key, root=config.cache)
        if cached is not None:
            form = plain_form(network, replace(config, teacher=()))
            return replace(form, teacher_share=config.teacher_share), cached, key
    form = plain_form(network, config)
    crops_px = config.steps * config.batch_size * config.patch_size**2
    if config.degradation or crops_px < pictures.lr.pixels.size // 3:
        return form, pictures, key  # upscaling the crops is less work than upscaling all pictures
    assert form.teacher is not None, "the config names teachers"
    teacher = form.teacher.eval().to(fabric.device)

    def upscale(lr: RgbImage) -> RgbImage:
        if stop():
            raise KeyboardInterrupt  # no step was made: there is nothing to save
        return upscale_in_windows(teacher, lr, config.scale, device=fabric.device)

    with fabric.rank_zero_first(local=True):
        pictures = with_teacher_sr(
            pictures, upscale, name=key, root=config.cache, report=display.report
        )
    return form, pictures, key


def _divided(
    fabric: Fabric, config: TrainConfig, pictures: PicturePairs
) -> tuple[CropSource, Sequence[Pair]]:
    """Divide the pictures into those trained on and those validated on, by picture, not by crop."""
    held_out: tuple[int, ...] = ()
    without: tuple[int, ...] = ()
    val_pairs: list[Pair] = []
    if config.val_folders:
        if fabric.is_global_zero:
            val_pairs = _pairs_of_folders(config)
            without = indices_of_same_content(pictures, val_pairs, crop=config.val_crop)
        if fabric.world_size > 1:
            without = fabric.broadcast(without)
        if without:
            logger.warning(
                "%d pictures of --data are in --val as well, and are not trained on", len(without)
            )
    elif config.holdout:
        held_out = held_out_indices(pictures, config.holdout, smallest=config.patch_size)
        without = crops_of_same_pictures(pictures, held_out)
        if len(without) > len(held_out):
            logger.warning(
                "%d more crops of the pictures that are validated on are not trained on",
                len(without) - len(held_out),
            )
    source = crop_source(
        pictures, config.patch_size, without=without, folder_weights=config.data_weights
    )
    if held_out and fabric.is_global_zero:
        val_pairs = pairs_from_cache(
            pictures,
            held_out,
            crop=config.val_crop,
            degradation=read_degradation(config.degradation) if config.degradation else None,
            own_lr=bool(config.lr),
        )
    return source, without_flat_pictures(val_pairs)


def _pairs_of_folders(config: TrainConfig) -> list[Pair]:
    pairs: list[Pair] = []
    for position, folder in enumerate(config.val_folders):
        lr_folder = config.val_lr[position] if config.val_lr else None
        pairs += pairs_from_folder(folder, config.scale, crop=config.val_crop, lr_folder=lr_folder)
    if config.degradation and not config.val_lr:
        return degraded_pairs(pairs, config.scale, read_degradation(config.degradation))
    return pairs
