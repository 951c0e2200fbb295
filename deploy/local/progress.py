"""One line per step for the person who watches: with a spinner on a terminal, plain elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status


class Progress:
    """Prints steps as they finish. Goes to standard error, so that standard output holds results alone."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)

    @contextmanager
    def step(self, title: str, done: str) -> Iterator[None]:
        """A step that takes a while: ``title`` while it runs, ``done`` with its time afterwards."""
        with self.waiting(title):
            began = time.monotonic()
            yield
            self.done(done, time.monotonic() - began)

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """Shows that something is under way; prints nothing that stays."""
        if not self._console.is_terminal:
            yield
            return
        with Status(f"{title} …", console=self._console):
            yield

    def done(self, text: str, seconds: float) -> None:
        """One step is done."""
        self._line("✓" if self._console.is_terminal else "ok  ", "green", f"{text} ({seconds:.1f} s)")

    def note(self, text: str) -> None:
        """Something the person should know happened."""
        self._line("!" if self._console.is_terminal else "note", "yellow", text)

    def failure(self, text: str) -> None:
        """The step failed; the lines after the first are details."""
        self._line("✗" if self._console.is_terminal else "error:", "red", text)

    def _line(self, mark: str, colour: str, text: str) -> None:
        self._console.print(f"[{colour}]{mark}[/]", end=" ")
        self._console.print(text, markup=False, soft_wrap=True)
