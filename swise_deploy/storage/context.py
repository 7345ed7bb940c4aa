"""Context managers that close themselves."""

from abc import ABC, abstractmethod

from typing_extensions import Self


class Closing(ABC):
    """A context manager that closes itself on leaving, also after an error."""

    @abstractmethod
    def close(self) -> None:
        """Release all resources."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
