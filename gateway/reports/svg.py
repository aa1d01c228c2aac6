"""A small drawing board for inline SVG: scales, axes, marks. PURE: numbers in, text out; it knows nothing of arms or latency.

Colours are CSS classes of the page (so that dark mode works); text stays text. A drawing is made once per width instead of
being scaled, so that its letters have the same size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Maps data to pixels: low..high to start..end, through `transform` (identity or logarithm)."""

    low: float
    high: float
    start: float
    end: float
    transform: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        low, high = self.transform(self.low), self.transform(self.high)
        share = (self.transform(value) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class Frame:
    """Outer size and the margins around the plotting area, in pixels."""

    width: int
    height: int
    left: int = 56
    right: int = 14
    top: int = 28
    bottom: int = 38

    @property
    def narrow(self) -> bool:
        """Whether this is the phone's drawing: fewer ticks fit."""
        return self.width < 500

    def x(self, low: float, high: float, transform: Callable[[float], float] = float) -> Scale:
        """Horizontal scale over the plotting area."""
        return Scale(low, high, self.left, self.width - self.right, transform)

    def y(self, low: float, high: float, transform: Callable[[float], float] = float) -> Scale:
        """Vertical scale over the plotting area, growing upwards."""
        return Scale(low, high, self.height - self.bottom, self.top, transform)


WIDE = Frame(960, 334)
NARROW = Frame(358, 294, left=44, right=10)


@dataclass
class Drawing:
    """Collects SVG elements; `render` wraps them with a title and a description for those who cannot see them."""

    frame: Frame
    parts: list[str] = field(default_factory=list)

    def line(self, points: Sequence[Point | None], css: str) -> None:
        """A polyline; None breaks it."""
        path, pen_up = [], True
        for point in points:
            if point is not None:
                path.append(f"{'M' if pen_up else 'L'}{point[0]:.1f} {point[1]:.1f}")
            pen_up = point is None
        if path:
            self.parts.append(f'<path class="{css}" d="{"".join(path)}"/>')

    def band(self, upper: Sequence[Point | None], lower: Sequence[Point | None], css: str) -> None:
        """The area between two lines over the same x; a gap in either breaks it."""
        run: list[tuple[Point, Point]] = []
        for high, low in [*zip(upper, lower, strict=True), (None, None)]:
            if high is not None and low is not None:
                run.append((high, low))
            elif run:
                outline = [p for p, _ in run] + [p for _, p in reversed(run)]
                self.parts.append(f'<path class="{css}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in outline)}Z"/>')
                run = []

    def rect(self, x: float, y: float, width: float, height: float, css: str) -> None:
        """A filled rectangle."""
        self.parts.append(
            f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"/>'
        )

    def segment(self, start: Point, end: Point, css: str) -> None:
        """A straight line."""
        self.parts.append(
            f'<line class="{css}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'
        )

    def text(self, at: Point, value: str, css: str = "tick", anchor: str = "middle") -> None:
        """A label."""
        self.parts.append(
            f'<text class="{css}" x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}">{escape(value)}</text>'
        )

    def x_axis(self, scale: Scale, ticks: Sequence[tuple[float, str]], label: str) -> None:
        """Ticks below the plotting area."""
        base = self.frame.height - self.frame.bottom
        self.segment((self.frame.left, base), (self.frame.width - self.frame.right, base), "axis")
        for value, name in ticks:
            self.segment((scale(value), base), (scale(value), base + 4), "axis")
            self.text((scale(value), base + 17), name)
        self.text((self.frame.width - self.frame.right, self.frame.height - 3), label, "label", "end")

    def y_axis(self, scale: Scale, ticks: Sequence[tuple[float, str]], label: str) -> None:
        """Grid lines across the plotting area, their labels to the left, the axis's name above them."""
        for value, name in ticks:
            self.segment((self.frame.left, scale(value)), (self.frame.width - self.frame.right, scale(value)), "grid")
            self.text((self.frame.left - 7, scale(value) + 4), name, anchor="end")
        self.text((4, 11), label, "label", "start")

    def render(self, name: str, title: str, description: str) -> str:
        """The finished element; `name` must be unique in the page."""
        return (
            f'<svg viewBox="0 0 {self.frame.width} {self.frame.height}" role="img" '
            f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{escape(title)}</title>'
            f'<desc id="{name}-d">{escape(description)}</desc>{"".join(self.parts)}</svg>'
        )


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round values (1, 2, 5 times a power of ten) that span low..high."""
    if high <= low:
        return [low]
    raw = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values for a logarithmic axis: 1, 2, 5 per decade where they fit, else whole decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**d for d in decades for m in steps if low * 0.999 <= m * 10.0**d <= high * 1.001]
        if len(ticks) <= most:
            break
    return ticks
