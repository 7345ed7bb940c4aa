"""The PyTorch core: networks, pictures, the super-resolution protocol, training."""

from swise_deploy.public_names import find_moved_modules, lazy_names

TYPE_CHECKING = False  # that of typing, whose import takes milliseconds; see command.launch
if TYPE_CHECKING:
    from swise_deploy.checkpoints.foreign import open_any as open_any
    from swise_deploy.checkpoints.load import open_network as open_network
    from swise_deploy.errors import SwiseError as SwiseError
    from swise_deploy.evaluation.metrics import METRICS as METRICS
    from swise_deploy.evaluation.metrics import Quality as Quality
    from swise_deploy.evaluation.metrics import psnr as psnr
    from swise_deploy.evaluation.metrics import quality as quality
    from swise_deploy.evaluation.metrics import ssim as ssim
    from swise_deploy.evaluation.pairs import evaluate as evaluate
    from swise_deploy.evaluation.pairs import mean_quality as mean_quality
    from swise_deploy.evaluation.pairs import read_pairs as read_pairs
    from swise_deploy.networks.parts.scale_wise import ScaleWiseUpsample as ScaleWiseUpsample
    from swise_deploy.pictures.files import read_rgb as read_rgb
    from swise_deploy.pictures.files import write_image as write_image
    from swise_deploy.pictures.folders import find_images as find_images
    from swise_deploy.pictures.folders import sample_paths as sample_paths
    from swise_deploy.runner import Runner as Runner
    from swise_deploy.runner import upscale as upscale
    from swise_deploy.runners.torch_cpu import TorchRunner as TorchRunner
    from swise_deploy.timing import ratio as ratio
    from swise_deploy.timing import time_calls as time_calls
    from swise_deploy.training.config import TrainConfig as TrainConfig
    from swise_deploy.training.loop import train as train

__version__ = "0.1.0"

PUBLIC = {
    "open_any": "swise_deploy.checkpoints.foreign",
    "open_network": "swise_deploy.checkpoints.load",
    "SwiseError": "swise_deploy.errors",
    "METRICS": "swise_deploy.evaluation.metrics",
    "Quality": "swise_deploy.evaluation.metrics",
    "psnr": "swise_deploy.evaluation.metrics",
    "quality": "swise_deploy.evaluation.metrics",
    "ssim": "swise_deploy.evaluation.metrics",
    "evaluate": "swise_deploy.evaluation.pairs",
    "mean_quality": "swise_deploy.evaluation.pairs",
    "read_pairs": "swise_deploy.evaluation.pairs",
    "ScaleWiseUpsample": "swise_deploy.networks.parts.scale_wise",
    "read_rgb": "swise_deploy.pictures.files",
    "write_image": "swise_deploy.pictures.files",
    "find_images": "swise_deploy.pictures.folders",
    "sample_paths": "swise_deploy.pictures.folders",
    "Runner": "swise_deploy.runner",
    "upscale": "swise_deploy.runner",
    "TorchRunner": "swise_deploy.runners.torch_cpu",
    "ratio": "swise_deploy.timing",
    "time_calls": "swise_deploy.timing",
    "TrainConfig": "swise_deploy.training.config",
    "train": "swise_deploy.training.loop",
}
"""Name to the module that defines it; imported when it is used."""

__getattr__ = lazy_names(__name__, PUBLIC)
find_moved_modules()
