"""Counting, measuring and reporting."""

from typing import TYPE_CHECKING

from swise_deploy.public_names import lazy_names

if TYPE_CHECKING:
    from swise_bench.benchmark import Settings as Settings
    from swise_bench.benchmark import run_benchmark as run_benchmark

PUBLIC = {
    "Settings": "swise_bench.benchmark",
    "run_benchmark": "swise_bench.benchmark",
}
"""Name to the module that defines it; imported when it is used."""

__getattr__ = lazy_names(__name__, PUBLIC)
