"""Attempts at an export that has to keep its drift, from the lowest precision upwards."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import InputError, QualityGateError
from swise_deploy.evaluation.pairs import Pair, centre_crop, read_pairs
from swise_deploy.pictures.files import RgbImage
from swise_deploy.pictures.folders import calibration_paths
from swise_deploy.precision import QuantisedPrecision, half_precision, quantised_precision
from swise_export.config import ExportConfig
from swise_export.precision.half import half_from_fp32
from swise_export.precision.plan import PrecisionPlan, read_plan
from swise_export.precision.recipe import QuantisationRecipe, calibrate_for_plan
from swise_export.precision.search.half_search import HalfSearch
from swise_export.precision.search.quantisation import QuantisationConfig, QuantisationSearch
from swise_export.tracing.int8_timing import placed_by_time
from swise_export.tracing.trace import opset_of, traced_form
from swise_export.verification.budget import DriftBudget

logger = logging.getLogger(__name__)

# Activation ranges are measured on crops of this many LR pixels: every layer's output is kept.
_RANGE_CROP = 64
# Shares of the drift that the search is given in turn, where the verification pictures lose more
# than those that it held out.
_BUDGET_SHARES = (1.0, 0.75, 0.5, 0.25, 0.1)
_NAMED_OBSTACLES = 3


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to lower the precision.

    Attributes:
        keep_fp32: Nodes that stay in fp32 beside those that always do.
        recipe: The quantised layers; None for none.
    """

    keep_fp32: tuple[str, ...] = ()
    recipe: QuantisationRecipe | None = None


def find_attempts(
    network: LoadedNetwork,
    config: ExportConfig,
    pairs: Sequence[Pair],
    calibration: Sequence[Path] | None,
    report: Callable[[str], None] = logger.info,
) -> Iterator[Attempt]:
    """Attempts in order; each is made only when the one before was refused.

    Args:
        network: The network.
        config: What to make.
        pairs: Pictures that the export is verified on.
        calibration: Pictures for INT8 and FP8; None for those shipped for it.
        report: Takes lines of progress.
    """
    low = quantised_precision(config.precision)
    if low is not None:
        yield from _quantised_attempts(network, config, low, calibration, report)
        return
    yield Attempt()
    half = half_precision(config.precision)
    if half is not None:
        report("looking for the operations that need fp32")
        opset = opset_of(config.precision)
        model = traced_form(network, form=config.form, batch=config.batch, opset=opset)
        images = [range_crop(p.lr, None) for p in pairs[:4]]
        search = HalfSearch(
            model,
            pairs,
            precision=half,
            scale=network.scale,
            kept=half_from_fp32(model, images, precision=half).fp32_nodes,
            threads=config.threads,
            report=report,
        )
        before: tuple[str, ...] = ()
        for share in _BUDGET_SHARES:
            found = search.nodes_for_fp32(config.budget.share(share))
            if found is None:
                return
            if found != before:
                yield Attempt(keep_fp32=found)
            before = found


def range_crop(lr: RgbImage, size: tuple[int, int] | None) -> RgbImage:
    """The middle of a picture, small enough to keep every layer's output; all of a fixed size."""
    return lr if size is not None else centre_crop(lr, _RANGE_CROP)


def _quantised_attempts(
    network: LoadedNetwork,
    config: ExportConfig,
    precision: QuantisedPrecision,
    calibration: Sequence[Path] | None,
    report: Callable[[str], None],
) -> Iterator[Attempt]:
    if calibration is None:
        report("calibrating on the shipped photographs; your own (--calib DIR) are better")
    pairs = read_pairs(calibration or calibration_paths(), network.scale)
    replays = config.plan is not None and config.plan.exists()
    rest = read_plan(config.plan).rest if config.plan is not None and replays else config.int8_rest
    # In the opset that will be written: layers are named otherwise in another.
    opset = opset_of(config.precision, rest)
    model = traced_form(network, form=config.form, batch=config.batch, opset=opset)
    if config.plan is not None and replays:
        plan = read_plan(config.plan)
        _refuse_other_plan(plan, network, config)
        report(f"replaying the precision plan {config.plan}")
        weights = calibrate_for_plan(
            model, plan, pairs, scale=network.scale, cache=config.cache, report=report
        )
        yield Attempt(recipe=QuantisationRecipe(plan, weights))
        return
    search = QuantisationSearch(
        model,
        pairs,
        scale=network.scale,
        config=QuantisationConfig(
            precision=precision,
            rest=config.int8_rest,
            runtime=config.runtime,
            method=config.range_method,
            threads=config.threads,
            cache=config.cache,
        ),
        report=report,
    )
    before: PrecisionPlan | None = None
    for share in _BUDGET_SHARES:
        plan = search.plan(
            config.budget.share(share),
            model_name=network.name,
            scale=network.scale,
            form=config.form,
            weights_sha256=network.weights_sha256,
        )
        if before is None or plan.quantised_layers != before.quantised_layers:
            if not plan.quantised_layers:
                raise _nothing_fits(plan, config.budget)
            recipe = QuantisationRecipe(plan, search.calibration.weights)
            if not config.target.is_emulated and not config.keep_slower:
                recipe = placed_by_time(network, config, recipe, report=report)
            yield Attempt(recipe=recipe)
        before = plan


def _nothing_fits(plan: PrecisionPlan, budget: DriftBudget) -> QualityGateError:
    worst = sorted(plan.layers, key=lambda layer: layer.noise_db)[:_NAMED_OBSTACLES]
    named = ", ".join(f"{layer.name} ({layer.alone_db:+.3f} dB alone)" for layer in worst)
    flags = "--max-drift" if budget.worst_db is None else "--max-drift or --max-worst"
    return QualityGateError(
        f"no layer can be {plan.precision.upper()} within {budget}. What costs most: {named}. "
        f"Nothing was kept. Allow more with {flags}, calibrate on pictures like yours with --calib"
        f"{', train with swise-train --qat' if plan.precision == 'int8' else ''}, or use --fp16"
    )


def _refuse_other_plan(plan: PrecisionPlan, network: LoadedNetwork, config: ExportConfig) -> None:
    for what, planned, asked in (
        ("model", plan.model, network.name),
        ("scale", plan.scale, network.scale),
        ("form", plan.form, config.form),
        ("weights", plan.weights_sha256, network.weights_sha256),
        ("precision", plan.precision, config.precision),
        ("runtime", plan.runtime, config.runtime),
        ("rest", plan.rest, config.rest or plan.rest),
        ("calibration method", plan.method, config.range_method or plan.method),
    ):
        if planned != asked:
            raise InputError(
                f"the precision plan {config.plan} was made for {what} {planned}, not {asked}. "
                "Export what it was made for, or give a new file name to make another plan"
            )
