"""The blend of two networks that is best on pictures that neither was trained on.

    python bench/scripts/blend_weights.py OLD NEW --data DIR --output FILE
    python bench/scripts/blend_weights.py OLD NEW --val DIR --output FILE

NEW is trained from OLD, so that the weights between them are a network too, often better than both
(Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). The pictures that
`swise-train --data DIR` holds out for validation are scored, or those of a folder. Prints PSNR-Y in
dB and SSIM-Y of each share of NEW.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from swise_deploy.checkpoints.load import LoadedNetwork, open_network
from swise_deploy.command.console import progress, run_command
from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import Pair, mean_quality
from swise_deploy.training.data.picture_cache import open_pairs
from swise_deploy.training.run.run_files import write_weights
from swise_deploy.training.run.validation import (
    held_out_indices,
    pairs_from_cache,
    pairs_from_folder,
    score_network,
)
from swise_deploy.training.step.allocator import keep_freed_memory


@dataclass(frozen=True, slots=True)
class BlendConfig:
    """One search for the best blend.

    Attributes:
        old: Weights that `new` started from.
        new: Weights of the same network.
        data: Pictures of which training holds some out for validation; None where `val` is given.
        val: Folder of which every picture is scored; None where `data` is given.
        output: The blended weights.
        scale: Scale, for weights that serve several.
        cache: Cache folder of the training pictures.
        num_held_out: Pictures that training holds out.
        patch_size: Side of a training crop, in LR pixels.
        crop: Side of the scored centre crop, in HR pixels; 0 scores whole pictures.
        num_parts: Steps from old to new.
    """

    old: Path
    new: Path
    data: Path | None
    val: Path | None
    output: Path
    scale: int | None
    cache: Path | None
    num_held_out: int
    patch_size: int
    crop: int
    num_parts: int

    def __post_init__(self) -> None:
        for flag, value in (("--holdout", self.num_held_out), ("--parts", self.num_parts)):
            if value < 1:
                raise InputError(f"{flag} is {value}; expected 1 or more")


def main() -> int:
    """Score the blends and write the best one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path, metavar="OLD", help="weights that NEW started from")
    parser.add_argument("new", type=Path, metavar="NEW", help="weights of the same network")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="as for training")
    source.add_argument("--val", type=Path, metavar="DIR", help="score all pictures of a folder")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="safetensors")
    parser.add_argument("--scale", type=int, help="for weights that serve several")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="as for training")
    parser.add_argument("--holdout", type=int, default=8, metavar="N", help="pictures (8)")
    parser.add_argument("--patch-size", type=int, default=48, metavar="N", help="as for training")
    parser.add_argument("--crop", type=int, default=480, metavar="PIXELS", help="0: whole pictures")
    parser.add_argument("--parts", type=int, default=10, metavar="N", help="steps from OLD to NEW")
    options = parser.parse_args()
    return run_command(
        lambda: _run(
            BlendConfig(
                old=options.old,
                new=options.new,
                data=options.data,
                val=options.val,
                output=options.output,
                scale=options.scale,
                cache=options.cache,
                num_held_out=options.holdout,
                patch_size=options.patch_size,
                crop=options.crop,
                num_parts=options.parts,
            )
        )
    )


def _run(config: BlendConfig) -> int:
    keep_freed_memory()
    old = open_network(scale=config.scale, weights=config.old)
    new = open_network(old.name, scale=old.scale, weights=config.new)
    _refuse_different(old, new)
    pairs = _pairs(config, old.scale)
    begin, end = ({n: t.clone() for n, t in x.module.state_dict().items()} for x in (old, new))
    blends = {}
    for part in range(config.num_parts + 1):
        share = part / config.num_parts
        old.module.load_state_dict(_between(begin, end, share))
        scores = score_network(old.module, pairs, old.scale, device=torch.device("cpu"))
        blends[share] = mean = mean_quality(scores)
        sys.stdout.write(f"{share:.0%}: PSNR-Y {mean.psnr_y_db:.4f}, SSIM-Y {mean.ssim_y:.5f}\n")
        sys.stdout.flush()
    best = max(blends, key=lambda share: blends[share].psnr_y_db)
    old.module.load_state_dict(_between(begin, end, best))
    facts = {
        "model": old.name,
        "scale": str(old.scale),
        "blend": f"{best:.0%} of {config.new.name}, the rest of {config.old.name}",
        "val_psnr_y_db": f"{blends[best].psnr_y_db:.4f}",
    }
    write_weights(config.output, old.module, facts)
    progress(f"{config.output}: {facts['blend']}")
    return 0


def _pairs(config: BlendConfig, scale: int) -> list[Pair]:
    if config.val is not None:
        return pairs_from_folder(config.val, scale, crop=config.crop)
    assert config.data is not None, "argparse requires one of the two"
    pictures = open_pairs(config.data, scale, root=config.cache, report=lambda *_: None)
    held_out = held_out_indices(pictures, config.num_held_out, smallest=config.patch_size)
    return pairs_from_cache(pictures, held_out, crop=config.crop)


def _between(
    begin: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    return {name: torch.lerp(tensor, end[name], share) for name, tensor in begin.items()}


def _refuse_different(old: LoadedNetwork, new: LoadedNetwork) -> None:
    shapes = [{n: t.shape for n, t in x.module.state_dict().items()} for x in (old, new)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{old.source} and {new.source} are weights of different networks; expected NEW to be "
            "trained from OLD"
        )


if __name__ == "__main__":
    sys.exit(main())
