"""Draw lines over a doubling x-axis as SVG, each with its name and last value at its end. Measures nothing."""

from __future__ import annotations

from html import escape
from math import log2

from goals import number

WIDTH, HEIGHT = 780, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 64, 48  # around the lines; at the right stand their names
LINE_HEIGHT = 18  # between names at the least
TICKS = 4  # lines of the grid, about

STYLE = """\
  svg { background: #fff; color-scheme: light dark; font: 14px system-ui, sans-serif }
  text { fill: #222 } .quiet { fill: #6b6b6b; font-size: 12px } .head { font-size: 16px; font-weight: 600 }
  path, circle { stroke: #8a8a8a; stroke-width: 1.5; fill: none } circle { fill: #8a8a8a; stroke: none }
  .ours path { stroke: #0b62c4; stroke-width: 3 } .ours circle { fill: #0b62c4 }
  .ours text { fill: #0b62c4; font-weight: 600 }
  line { stroke: #e4e4e4 }
  @media (prefers-color-scheme: dark) {
    svg { background: #16181c } text { fill: #e6e6e6 } .quiet { fill: #9aa0a6 } line { stroke: #2e3238 }
    .ours path { stroke: #6cb2ff } .ours circle, .ours text { fill: #6cb2ff }
  }"""

Line = list[tuple[int, float]]  # x (ascending) and y


def step(largest: float) -> float:
    """Return the distance of the grid's lines: 1, 2 or 5 times a power of ten, about TICKS of them up to `largest`."""
    power = 1.0
    while power * 10 <= largest / TICKS:
        power *= 10
    return min((power * times for times in (1, 2, 5, 10)), key=lambda each: abs(largest / each - TICKS))


def apart(wanted: list[float]) -> list[float]:
    """Return positions near the `wanted` ones (ascending), none nearer to the next than LINE_HEIGHT."""
    found, lowest = [], float(HEIGHT - BOTTOM)
    for position in reversed(wanted):  # from below, where slow ones crowd
        found.append(min(position, lowest))
        lowest = found[-1] - LINE_HEIGHT
    return found[::-1]


def below(x: float, distance: float, text: str) -> str:
    """Return `text` under the x-axis."""
    y = HEIGHT - BOTTOM + distance
    return f'<text class="quiet" x="{x:.1f}" y="{y}" text-anchor="middle">{escape(text)}</text>'


def plot(lines: dict[str, Line], ours: str, title: str, x_label: str) -> str:
    """Return SVG of `lines`, that of `ours` in colour. Each has the same x values, of which the largest comes last."""
    counts = [x for x, _ in lines[ours]]
    largest = max(y for line in lines.values() for _, y in line)

    def across(x: int) -> float:
        return LEFT + log2(x / counts[0]) / log2(counts[-1] / counts[0]) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - y / largest * (HEIGHT - TOP - BOTTOM)

    out = []
    distance = step(largest)
    for i in range(int(largest / distance) + 1):
        y = up(i * distance)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="quiet" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{i * distance:,.0f}</text>')
    for x in counts:
        out.append(below(across(x), 20, f"{x:,}"))
    out.append(below((LEFT + WIDTH - RIGHT) / 2, 40, x_label))
    names = sorted(lines, key=lambda name: up(lines[name][-1][1]))
    for name, label in zip(names, apart([up(lines[name][-1][1]) for name in names])):
        points = [f"{across(x):.1f} {up(y):.1f}" for x, y in lines[name]]
        dots = "".join('<circle cx="{}" cy="{}" r="2.5"/>'.format(*point.split()) for point in points)
        words = f"{escape(name)} {number(lines[name][-1][1])}"
        text = f'<text x="{WIDTH - RIGHT + 10}" y="{label + 5:.1f}">{words}</text>'
        kind = "ours" if name == ours else "other"
        out.append(f'<g class="{kind}"><path d="M {" L ".join(points)}"/>{dots}{text}</g>')
    told = "; ".join(f"{name}: {', '.join(f'{number(y)} at {x:,}' for x, y in line)}" for name, line in lines.items())
    body = "\n  ".join(out)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title description">
  <title id="title">{escape(title)}</title>
  <desc id="description">{escape(told)}</desc>
  <style>
{STYLE}
  </style>
  <text class="head" x="{LEFT}" y="32">{escape(title)}</text>
  {body}
</svg>
"""
