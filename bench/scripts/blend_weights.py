"""The blend of two networks that is best on pictures that neither was trained on.

    python bench/scripts/blend_weights.py OLD NEW --data DIR --output FILE
    python bench/scripts/blend_weights.py OLD NEW --val DIR --output FILE

NEW was trained on from OLD, so that the weights between them are a network too, often better than
both (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). Scored are the pictures
that `swise-train --data DIR` holds out for validation, or those of a folder. Prints PSNR-Y in dB
and SSIM-Y of each share of NEW.
"""

import argparse
import sys
from collections.abc import Mapping
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
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    keep_freed_memory()
    for name in ("holdout", "parts"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}; expected 1 or more")
    old = open_network(scale=options.scale, weights=options.old)
    new = open_network(old.name, scale=old.scale, weights=options.new)
    _refuse_different(old, new)
    pairs = _pairs(options, old.scale)
    begin, end = ({n: t.clone() for n, t in x.module.state_dict().items()} for x in (old, new))
    blends = {}
    for part in range(options.parts + 1):
        share = part / options.parts
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
        "blend": f"{best:.0%} of {options.new.name}, the rest of {options.old.name}",
        "val_psnr_y_db": f"{blends[best].psnr_y_db:.4f}",
    }
    write_weights(options.output, old.module, facts)
    progress(f"{options.output}: {facts['blend']}")
    return 0


def _pairs(options: argparse.Namespace, scale: int) -> list[Pair]:
    if options.val is not None:
        return pairs_from_folder(options.val, scale, crop=options.crop)
    pictures = open_pairs(options.data, scale, root=options.cache, report=lambda *_: None)
    held_out = held_out_indices(pictures, options.holdout, smallest=options.patch_size)
    return pairs_from_cache(pictures, held_out, crop=options.crop)


def _between(
    begin: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    return {name: torch.lerp(tensor, end[name], share) for name, tensor in begin.items()}


def _refuse_different(old: LoadedNetwork, new: LoadedNetwork) -> None:
    shapes = [{n: t.shape for n, t in x.module.state_dict().items()} for x in (old, new)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{old.source} and {new.source} are weights of different networks; expected NEW to be "
            "trained on from OLD"
        )


if __name__ == "__main__":
    sys.exit(main())
