"""The live view of a replay on stderr; where that is no terminal it shows nothing at no cost.

Painted at a steady rate and not at every tick: frames in between are kept for the trends but not
drawn, so that the view never slows the replay down.
"""

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.live import Live

from planner.model import Service
from planner.view.grid import TREND_MAX
from planner.view.screen import CHANGES_SHOWN, Progress, Scene, SoFar, picture

if TYPE_CHECKING:  # the replay brings the compiled plant, the view needs its frames alone
    from planner.record import TickRecord
    from planner.replay import Frame

PAINT_EVERY_S: Final = 0.1
"""Ten pictures a second look steady."""


class LiveView:
    """Shows a replay while it runs.

    Parameters
    ----------
    service
        Whose replay.
    intervals
        Ticks that will be shown.
    title
        What is being replayed.
    console
        Where to draw, and by whose clock; default: stderr.
    """

    def __init__(
        self,
        service: Service,
        intervals: int,
        title: str,
        console: Console | None = None,
    ) -> None:
        self._service, self._title, self._intervals = service, title, intervals
        self._console = console or Console(stderr=True, highlight=False)
        self._start_s = self._console.get_time()
        self._live: Live | None = None
        self._painted_s = 0.0
        self._done, self._at_s = 0, 0.0
        self._recent: deque[TickRecord] = deque(maxlen=TREND_MAX)
        self._changes: deque[TickRecord] = deque(maxlen=CHANGES_SHOWN)
        self._ttft, self._itl = SoFar(), SoFar()

    def __enter__(self) -> Self:
        if _can_draw(self._console):
            # Nobody's stdout is touched: it may be a pipe that carries the result.
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                vertical_overflow="crop",
            )
            self._live.start()
            self._paint()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._paint()
            self._live.stop()
            self._live = None

    @property
    def is_shown(self) -> bool:
        """Whether anybody sees it."""
        return self._live is not None

    def show(self, frame: "Frame") -> None:
        """Take in one tick, and paint if the last picture is old enough."""
        if self._live is None:
            return
        record, seen = frame.record, frame.record.decision.observation
        self._done, self._at_s = self._done + 1, frame.at_s
        self._recent.append(record)
        if record.decision.hold or _orders(record):
            self._changes.append(record)
        if seen is not None:
            self._ttft, self._itl = self._ttft.plus(seen.ttft), self._itl.plus(seen.itl)
        if self._elapsed_s() - self._painted_s >= PAINT_EVERY_S:
            self._paint()

    def _elapsed_s(self) -> float:
        """Return the time since the start [s]; the terminal's clock, which tests can set."""
        return self._console.get_time() - self._start_s

    def _paint(self) -> None:
        """Draw the picture of now."""
        assert self._live is not None
        elapsed_s = self._elapsed_s()
        scene = Scene(
            service=self._service,
            title=self._title,
            progress=Progress(self._done, self._intervals, self._at_s, elapsed_s),
            recent=tuple(self._recent),
            changes=tuple(self._changes),
            ttft=self._ttft,
            itl=self._itl,
        )
        # The last cell of a line and the last line of a screen make some terminals wrap or scroll.
        width, height = self._console.size
        self._live.update(picture(scene, max(width - 1, 1), max(height - 1, 1)), refresh=True)
        self._painted_s = self._elapsed_s()


def _can_draw(console: Console) -> bool:
    """Return whether this is a terminal that can move its cursor and knows block characters."""
    unicode = console.encoding.lower().startswith("utf")
    return console.is_terminal and not console.is_dumb_terminal and unicode


def _orders(record: "TickRecord") -> bool:
    return any(pool.desired != pool.current for pool in record.decision.pools.values())
