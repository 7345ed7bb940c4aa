"""Scores of the fp32 torch network that a subject was made from."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from swise_bench.measuring.quality import score_pictures
from swise_bench.subjects.spec import Subject, load_network, open_subject
from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.evaluation.metrics import Quality
from swise_deploy.runner import upscale


def score_reference(
    subject: Subject,
    facts: Mapping[str, str],
    scale: int,
    paths: Sequence[Path],
    *,
    is_file: bool,
    threads: int,
    cache: Path,
    lr: Mapping[Path, Path] | None = None,
) -> Mapping[str, Quality] | None:
    """Scores of the reference by picture; None where it is unknown or torch is missing.

    Args:
        subject: What is compared with it.
        facts: What the subject's file states of its origin.
        scale: Output size over input size.
        paths: Ground truths.
        is_file: True where the subject is a file, which has to state the same weights.
        threads: Threads of torch.
        cache: Folder for scores.
        lr: The LR picture of each ground truth; None makes them by MATLAB's bicubic.
    """
    name = subject.network or facts.get("model", "")
    if not name:
        return None
    source = Subject(f"{name}:{scale}@torch", "torch", None, name, subject.weights, scale)
    try:
        network = load_network(source)
    except (BackendMissingError, InputError):
        return None
    # A file of other weights, or one that does not state them, was not made from this network.
    if is_file and facts.get("weights_sha256") != network.weights_sha256:
        return None
    with open_subject(source, threads=threads, folder=cache) as runner:
        return score_pictures(
            partial(upscale, runner),
            paths,
            scale,
            identity=f"{network.weights_sha256} {runner.name}",
            cache=cache,
            lr=lr,
        ).scores
