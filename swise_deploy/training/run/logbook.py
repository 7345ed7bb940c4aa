"""The log of a run: JSON lines for programs, TensorBoard for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from swise_deploy.command.dependencies import require
from swise_deploy.storage.context import Closing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Logbook(Closing):
    """Appends records to log.jsonl and their numbers to TensorBoard.

    Args:
        out: The run's folder.
        first_step: Where this session starts; TensorBoard forgets what lies behind it.
        tensorboard: Write TensorBoard events.
        quiet: Write nothing, as in all processes but the first.

    Raises:
        BackendMissingError: TensorBoard is wanted and not installed.
    """

    def __init__(
        self, out: Path, *, first_step: int, tensorboard: bool, quiet: bool = False
    ) -> None:
        self._writer: SummaryWriter | None = None
        if tensorboard and not quiet:
            module = require(
                "torch.utils.tensorboard", extra="train", purpose="the TensorBoard log"
            )
            self._writer = module.SummaryWriter(out / "tensorboard", purge_step=first_step)
        self._file = None if quiet else (out / "log.jsonl").open("a", encoding="utf-8")

    def record(self, kind: str, step: int, values: Mapping[str, object]) -> None:
        """Append a record of a kind ("train", "val", "event"), at once on disk."""
        if self._file is not None:
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close both logs."""
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()
