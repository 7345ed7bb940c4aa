"""The display matrix of a video: how its frames are turned and mirrored before they are shown."""

import struct
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Sample = TypeVar("Sample", bound=np.generic)

_NUM_BYTES = 36


@dataclass(frozen=True, slots=True)
class Turn:
    """A transposition followed by mirroring; together the eight ways to show a picture upright.

    Attributes:
        transposes: Swap rows and columns first.
        mirrors_rows: Reverse the order of the rows.
        mirrors_columns: Reverse the order of the columns.
    """

    transposes: bool = False
    mirrors_rows: bool = False
    mirrors_columns: bool = False

    def apply(self, samples: NDArray[Sample]) -> NDArray[Sample]:
        """Turn (H, W) or (H, W, C)."""
        if self.transposes:
            samples = samples.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.mirrors_rows else 1)
        columns = slice(None, None, -1 if self.mirrors_columns else 1)
        return np.ascontiguousarray(samples[rows, columns])


def turn_from_matrix(matrix: bytes) -> Turn:
    """Read a display matrix as FFmpeg stores it: nine native int32, row by row.

    A point (x, y) is shown at (a*x + c*y, b*x + d*y) with rows (a, b, u), (c, d, v), (x, y, w)
    (ISO/IEC 14496-12, 8.3.2). Angles other than multiples of 90 degrees are rounded to one.
    """
    if len(matrix) < _NUM_BYTES:
        return Turn()
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:_NUM_BYTES])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(mirrors_rows=d < 0, mirrors_columns=a < 0)
    return Turn(transposes=True, mirrors_rows=b < 0, mirrors_columns=c < 0)
