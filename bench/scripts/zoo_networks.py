"""The zoo's networks: architectures that spandrel recognises, at sizes as small as they come.

Each is built by spandrel's own class with seeded random weights. Widths and depths are the smallest
that the class, and spandrel's detection of it, take; windows are those of the published networks.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_SEED = 0
_SPREAD = 0.02


@dataclass(frozen=True, slots=True)
class ZooNetwork:
    """A small network of one of spandrel's architectures.

    Attributes:
        name: For the table.
        architecture: A module of `spandrel.architectures`.
        kind: A class of it.
        options: The class's keyword arguments.
        renamed: Renames tensors for the checkpoint; None keeps the class's own names.
        prefix: Of every tensor in the checkpoint.
    """

    name: str
    architecture: str
    kind: str
    options: Mapping[str, object]
    renamed: Callable[[str], str] | None = None
    prefix: str = ""

    def state(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint, the same at every call."""
        package = importlib.import_module(f"spandrel.architectures.{self.architecture}")
        torch.manual_seed(_SEED)
        module: nn.Module = getattr(package, self.kind)(**self.options)
        module.eval()
        with torch.no_grad():
            # What starts as zero, such as the scale of a residual branch, would hide its branch.
            for parameter in module.parameters():
                parameter.add_(_SPREAD * torch.randn(parameter.shape))
        rename = self.renamed or str
        return {self.prefix + rename(name): value for name, value in module.state_dict().items()}


def _new_esrgan(name: str) -> str:
    """The name of a tensor in Real-ESRGAN's layout, from ESRGAN's; one block and x4."""
    block = re.fullmatch(r"model\.1\.sub\.0\.RDB(\d)\.conv(\d)\.0\.(\w+)", name)
    if block:
        return f"body.0.rdb{block[1]}.conv{block[2]}.{block[3]}"
    layers = {
        "model.0": "conv_first",
        "model.1.sub.1": "conv_body",
        "model.3": "conv_up1",
        "model.6": "conv_up2",
        "model.8": "conv_hr",
        "model.10": "conv_last",
    }
    layer, _, kind = name.rpartition(".")
    return f"{layers[layer]}.{kind}"


_RRDB = {"num_filters": 8, "num_blocks": 1}
_WINDOWS = {"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 8, "img_size": 16}
_HAT = {**_WINDOWS, "window_size": 16, "num_feat": 8, "img_size": 32}
_UNET = {"nc": [8, 8, 8, 8], "nb": 2}

ZOO = (
    ZooNetwork("ESRGAN x4", "ESRGAN", "ESRGAN", {**_RRDB, "scale": 4}),
    ZooNetwork("Real-ESRGAN x4", "ESRGAN", "ESRGAN", {**_RRDB, "scale": 4}, _new_esrgan),
    ZooNetwork(
        "Real-ESRGAN x2, pixel unshuffle",
        "ESRGAN",
        "ESRGAN",
        {**_RRDB, "scale": 4, "in_nc": 12, "shuffle_factor": 2},
        _new_esrgan,
    ),
    ZooNetwork("ESRGAN+ x2", "ESRGAN", "ESRGAN", {**_RRDB, "scale": 2, "plus": True}),
    ZooNetwork(
        "ESRGAN x2, grey", "ESRGAN", "ESRGAN", {**_RRDB, "scale": 2, "in_nc": 1, "out_nc": 1}
    ),
    ZooNetwork(
        "RealESRGAN Compact x4", "Compact", "Compact", {"num_feat": 8, "num_conv": 2, "upscale": 4}
    ),
    ZooNetwork(
        "Swift-SRGAN x2",
        "SwiftSRGAN",
        "SwiftSRGAN",
        {"num_channels": 8, "num_blocks": 1, "upscale_factor": 2},
    ),
    ZooNetwork(
        "RCAN x2",
        "RCAN",
        "RCAN",
        {"scale": 2, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 8, "reduction": 4},
    ),
    ZooNetwork(
        "SPAN x2",
        "SPAN",
        "SPAN",
        {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2},
    ),
    ZooNetwork("SAFMN x2", "SAFMN", "SAFMN", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2}),
    ZooNetwork(
        "SAFMN BCIE",
        "SAFMNBCIE",
        "SAFMNBCIE",
        {"dim": 8, "n_blocks": 1, "num_layers": 1, "upscaling_factor": 2},
    ),
    ZooNetwork("PLKSR x2", "PLKSR", "PLKSR", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2}),
    ZooNetwork(
        "RealPLKSR x2", "PLKSR", "RealPLKSR", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2}
    ),
    ZooNetwork(
        "RealPLKSR x2, DySample",
        "PLKSR",
        "RealPLKSR",
        {"dim": 8, "n_blocks": 1, "upscaling_factor": 2, "dysample": True},
    ),
    ZooNetwork("MoSR x2", "MoSR", "MoSR", {"upscale": 2, "n_block": 1, "dim": 8}),
    ZooNetwork(
        "MoSR x2, DySample",
        "MoSR",
        "MoSR",
        {"upscale": 2, "n_block": 1, "dim": 8, "upsampler": "dys"},
    ),
    ZooNetwork(
        "MoESR x2",
        "MoESR",
        "MoESR",
        {"scale": 2, "dim": 8, "n_blocks": 1, "n_block": 1, "upsample_dim": 8},
    ),
    ZooNetwork(
        "SeemoRe x2",
        "SeemoRe",
        "SeemoRe",
        {"scale": 2, "num_experts": 2, "num_layers": 1, "embedding_dim": 8},
    ),
    ZooNetwork(
        "DITN x2", "DITN", "DITN", {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "upscale": 2}
    ),
    ZooNetwork("DCTLSA x2", "DCTLSA", "DCTLSA", {"nf": 10, "upscale": 2}),
    ZooNetwork(
        "MMRealSR x4",
        "MMRealSR",
        "MMRealSR",
        {
            "num_in_ch": 3,
            "num_out_ch": 3,
            "scale": 4,
            "num_feat": 8,
            "num_block": 1,
            "num_grow_ch": 4,
            "num_feats": [8, 8, 8, 8],
            "num_blocks": [1, 1, 1, 1],
        },
    ),
    ZooNetwork("Real-CUGAN x2", "RealCUGAN", "UpCunet2x", {}),
    ZooNetwork("Real-CUGAN x3", "RealCUGAN", "UpCunet3x", {}),
    ZooNetwork("Real-CUGAN x2, fast", "RealCUGAN", "UpCunet2x_fast", {}),
    ZooNetwork(
        "SwinIR x2", "SwinIR", "SwinIR", {**_WINDOWS, "upscale": 2, "upsampler": "pixelshuffle"}
    ),
    ZooNetwork(
        "SwinIR x2, lightweight",
        "SwinIR",
        "SwinIR",
        {**_WINDOWS, "upscale": 2, "upsampler": "pixelshuffledirect"},
    ),
    ZooNetwork(
        "SwinIR x4, nearest",
        "SwinIR",
        "SwinIR",
        {**_WINDOWS, "upscale": 4, "upsampler": "nearest+conv"},
    ),
    ZooNetwork(
        "SwinIR, JPEG",
        "SwinIR",
        "SwinIR",
        {**_WINDOWS, "window_size": 7, "img_size": 14, "img_range": 255.0},
    ),
    ZooNetwork(
        "Swin2SR x2",
        "Swin2SR",
        "Swin2SR",
        {**_WINDOWS, "upscale": 2, "upsampler": "pixelshuffledirect"},
    ),
    ZooNetwork(
        "HAT x2", "HAT", "HAT", {**_HAT, "upscale": 2, "compress_ratio": 3, "squeeze_factor": 4}
    ),
    ZooNetwork(
        "DAT x2, light",
        "DAT",
        "DAT",
        {
            "img_size": 32,
            "embed_dim": 32,
            "split_size": [8, 32],
            "depth": [3],
            "num_heads": [2],
            "expansion_factor": 2.0,
            "upsampler": "pixelshuffledirect",
        },
    ),
    ZooNetwork(
        "RGT x2",
        "RGT",
        "RGT",
        {"embed_dim": 12, "depth": [2], "num_heads": [2], "split_size": [8, 32]},
    ),
    ZooNetwork(
        "ATD x2",
        "ATD",
        "ATD",
        {
            "embed_dim": 12,
            "depths": (2,),
            "num_heads": (2,),
            "num_tokens": 8,
            "reducted_dim": 2,
            "upscale": 2,
            "upsampler": "pixelshuffle",
        },
    ),
    ZooNetwork(
        "DRCT x2",
        "DRCT",
        "DRCT",
        {
            **_WINDOWS,
            "window_size": 16,
            "img_size": 32,
            "depths": (6,),
            "gc": 4,
            "upscale": 2,
            "upsampler": "pixelshuffle",
        },
    ),
    ZooNetwork(
        "CRAFT x2",
        "CRAFT",
        "CRAFT",
        {"embed_dim": 12, "depths": [2], "num_heads": [2], "upscale": 2},
    ),
    ZooNetwork("OmniSR x2", "OmniSR", "OmniSR", {"num_feat": 16, "up_scale": 2}),
    ZooNetwork(
        "GRL x2",
        "GRL",
        "GRL",
        {
            "embed_dim": 16,
            "upscale": 2,
            "upsampler": "pixelshuffledirect",
            "depths": [2],
            "num_heads_window": [2],
            "num_heads_stripe": [2],
            "window_size": 32,
            "stripe_size": [64, 64],
            "stripe_shift": True,
            "anchor_window_down_factor": 4,
            "local_connection": False,
        },
    ),
    ZooNetwork(
        "FDAT x2",
        "FDAT",
        "FDAT",
        {
            "scale": 2,
            "embed_dim": 16,
            "num_groups": 1,
            "depth_per_group": 1,
            "num_heads": 2,
            "upsampler_type": "pixelshuffledirect",
            "mid_dim": 8,
        },
    ),
    ZooNetwork(
        "IPT x2",
        "IPT",
        "IPT",
        {"patch_size": 12, "n_feats": 12, "scale": [2], "num_layers": 1},
    ),
    ZooNetwork(
        "AuraSR x4",
        "AuraSR",
        "AuraSR",
        {
            "dim": 8,
            "image_size": None,
            "input_image_size": None,
            "style_network": {"dim_in": 8, "dim_out": 32, "depth": 1},
            "up_dim_mults": (1, 1, 1, 1, 1),
            "down_dim_mults": (1, 1, 1),
            "full_attn": (False, False, False, False, False),
            "mid_attn_depth": 1,
            "skip_connect_scale": 0.4,
        },
    ),
    ZooNetwork(
        "NAFNet",
        "NAFNet",
        "NAFNet",
        {"width": 8, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    ),
    ZooNetwork(
        "KBNet, denoising",
        "KBNet",
        "KBNet_s",
        {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    ),
    ZooNetwork(
        "KBNet, deraining",
        "KBNet",
        "KBNet_l",
        {"dim": 24, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 1, 1]},
    ),
    ZooNetwork(
        "Uformer",
        "Uformer",
        "Uformer",
        {"embed_dim": 8, "depths": [1] * 9, "num_heads": [1, 1, 1, 1, 1, 1, 1, 1, 1]},
    ),
    ZooNetwork("SCUNet", "SCUNet", "SCUNet", {"dim": 64, "config": [1] * 7}),
    ZooNetwork("DRUNet", "DRUNet", "DRUNet", {**_UNET, "in_nc": 4, "out_nc": 3}),
    ZooNetwork("DRUNet, grey", "DRUNet", "DRUNet", {**_UNET, "in_nc": 2, "out_nc": 1}),
    ZooNetwork(
        "DnCNN", "DnCNN", "DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 8, "nb": 8, "act_mode": "R"}
    ),
    ZooNetwork(
        "FDnCNN",
        "DnCNN",
        "DnCNN",
        {"in_nc": 4, "out_nc": 3, "nc": 8, "nb": 8, "act_mode": "R", "mode": "FDnCNN"},
    ),
    ZooNetwork("FBCNN", "FBCNN", "FBCNN", {**_UNET, "nc": [8, 8, 8, 512]}),
    ZooNetwork(
        "FFTformer",
        "FFTformer",
        "FFTformer",
        {"dim": 8, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1},
    ),
    ZooNetwork("RetinexFormer", "RetinexFormer", "RetinexFormer", {"n_feat": 8, "stage": 1}),
    ZooNetwork(
        "HVI-CIDNet", "HVICIDNet", "HVICIDNet", {"channels": [8, 8, 16, 16], "heads": [1, 1, 2, 2]}
    ),
    ZooNetwork(
        "MixDehazeNet",
        "MixDehazeNet",
        "MixDehazeNet",
        {"embed_dims": [8, 16, 32, 16, 8], "depths": [1, 1, 1, 1, 1]},
    ),
)
"""In the order of the table: convolutions, windows and transformers, restoration."""
