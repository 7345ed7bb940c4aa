"""Cache folders, for results that can be computed again."""

from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path

CacheKind = Literal[
    "bench",
    "exported",
    "fastest",
    "int8",
    "interfaces",
    "receptive_fields",
    "runtime_checks",
    "training",
]


def cache_folder(kind: CacheKind | None = None) -> Path:
    """A folder in the user's cache, by the conventions of the platform; it may not exist yet.

    Its files may be deleted at any time.

    Args:
        kind: Kind of content; None for the folder of all kinds.
    """
    folder = user_cache_path("swise-deploy", appauthor=False)
    return folder if kind is None else folder / kind
