"""Settings of the video encoder."""

from dataclasses import dataclass

DEFAULT_CRF = 17


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """Encoder and quality of a result.

    Attributes:
        codec: An FFmpeg encoder; None takes one for the codec of the input.
        crf: Constant rate factor: lower is better and larger.
        preset: The encoder's own name for a speed.
    """

    codec: str | None = None
    crf: int = DEFAULT_CRF
    preset: str | None = None
