"""The worst pictures of a run through the subjects that stand out, for the page and the figure."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from swise_bench.benchmark import Settings
from swise_bench.reports.showcase import Showcase, make_showcase
from swise_bench.reports.verdict import summarize
from swise_bench.results.values import Benchmark, NotMeasured, SubjectResult
from swise_bench.subjects.files import fixed_batch
from swise_bench.subjects.resolve_auto import resolve_auto
from swise_bench.subjects.spec import open_subject
from swise_deploy.pictures.folders import find_images, picture_names
from swise_deploy.runner import upscale

MAX_SHOWCASES = 6
"""Pictures with a slider."""

MAX_SHOWN = 8
"""Subjects in a slider; the page would grow by megabytes with more."""


def showcases_of(settings: Settings, benchmark: Benchmark) -> list[Showcase]:
    """The worst pictures, through the subjects of the first one's scale that stand out."""
    scored = [s for s in benchmark.subjects if not isinstance(s.quality, NotMeasured)]
    if not settings.images or settings.lr_images or not scored:
        return []
    scale = scored[0].scale
    shown = _shown(benchmark, scale)
    worst = _worst_pictures([s for s in scored if s.name in shown])
    names = picture_names(find_images(settings.images[0]))
    paths = {name: path for path, name in names.items()}
    by_name = {subject.name: subject for subject in settings.subjects}
    with ExitStack() as stack:
        upscalers = {}
        for name in shown:
            resolved = resolve_auto(by_name[name], threads=settings.threads, cache=settings.cache)
            folder = settings.cache / "exported"
            runner = open_subject(resolved, threads=settings.threads, folder=folder)
            batch = fixed_batch(resolved.path)
            upscalers[name] = partial(upscale, stack.enter_context(runner), batch=batch)
        return [
            make_showcase(paths[name], scale, upscalers)
            for name in worst[:MAX_SHOWCASES]
            if name in paths
        ]


def _shown(benchmark: Benchmark, scale: int) -> list[str]:
    """Subjects of a scale that stand out, then others, in the order in which they were given."""
    stand_out = {
        v.name for v in summarize(benchmark).verdicts if v.is_fastest or v.is_best or v.is_reference
    }
    able = [s.name for s in benchmark.subjects if s.scale == scale and "opening" not in s.failures]
    wanted = sorted(able, key=lambda name: name not in stand_out)[:MAX_SHOWN]
    return [name for name in able if name in wanted]


def _worst_pictures(subjects: Sequence[SubjectResult]) -> list[str]:
    """Pictures of the first folder, from the one on which a subject did worst."""
    scores = [
        score
        for subject in subjects
        if not isinstance(subject.quality, NotMeasured)
        for score in subject.quality[0].pictures
    ]
    return list(dict.fromkeys(s.picture for s in sorted(scores, key=lambda s: s.badness)))
