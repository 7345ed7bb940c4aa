"""The outcome of one run of `swise-upscale`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Summary:
    """Counts of a run; `runner` is empty where there was nothing to do.

    Attributes:
        runner: Runtime and device.
        scale: Output size over input size.
        reason: Comparison with other runners, where several were possible.
        done: Number of results written.
        skipped: Number of results that existed.
        failures: The error by input.
        left_out: Number of files that are neither pictures nor videos, by suffix.
        seconds: Wall time.
    """

    runner: str = ""
    scale: int = 0
    reason: str = ""
    done: int = 0
    skipped: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """1 where anything failed."""
        return 1 if self.failures else 0

    def to_text(self) -> str:
        """One line."""
        again = f" (--overwrite does {'it' if self.skipped == 1 else 'them'} again)"
        there = f"{self.skipped} there already{again if self.skipped else ''}"
        counts = f"{self.done} done, {there}, {len(self.failures)} failed"
        if self.left_out:
            counts += f", {sum(self.left_out.values())} left out"
        if not self.runner:
            return counts if self.failures else f"{counts}; nothing to do"
        rate = f", {self.done / self.seconds:.2f} files/s" if self.done and self.seconds else ""
        return f"{counts}; x{self.scale} with {self.runner}, {self.seconds:.1f} s{rate}"

    def to_json(self) -> str:
        """A JSON document."""
        return json.dumps(
            {
                "runner": self.runner,
                "runner_reason": self.reason,
                "scale": self.scale,
                "done": self.done,
                "skipped": self.skipped,
                "failed": self.failures,
                "left_out": dict(self.left_out),
                "seconds": round(self.seconds, 3),
            },
            indent=2,
        )
