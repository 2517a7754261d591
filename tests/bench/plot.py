"""Draw lines over a doubling x-axis as SVG, or bars with their margins. Measures nothing."""

from __future__ import annotations

from html import escape
from math import log2
from typing import NamedTuple

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
  line { stroke: #e4e4e4 } .other rect { fill: #b4b4b4 } .ours rect { fill: #0b62c4 }
  g .margin { stroke: #222; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    svg { background: #16181c } text { fill: #e6e6e6 } .quiet { fill: #9aa0a6 } line { stroke: #2e3238 }
    .ours path { stroke: #6cb2ff } .ours circle, .ours text, .ours rect { fill: #6cb2ff }
    .other rect { fill: #6b6f76 } g .margin { stroke: #e6e6e6 }
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


def height(y: float, largest: float) -> float:
    """Return where `y` is drawn, if `largest` is at the top."""
    return HEIGHT - BOTTOM - y / largest * (HEIGHT - TOP - BOTTOM)


def grid(largest: float) -> list[str]:
    """Return the lines of the grid up to `largest`, with their numbers."""
    out = []
    distance = step(largest)
    for i in range(int(largest / distance) + 1):
        y = height(i * distance, largest)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="quiet" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{i * distance:,.0f}</text>')
    return out


def document(title: str, told: str, parts: list[str]) -> str:
    """Return SVG made of `parts`; `told` is for those who cannot see it."""
    body = "\n  ".join(parts)
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


def plot(lines: dict[str, Line], ours: str, title: str, x_label: str) -> str:
    """Return SVG of `lines`, that of `ours` in colour. Each has the same x values, of which the largest comes last."""
    counts = [x for x, _ in lines[ours]]
    largest = max(y for line in lines.values() for _, y in line)

    def across(x: int) -> float:
        return LEFT + log2(x / counts[0]) / log2(counts[-1] / counts[0]) * (WIDTH - LEFT - RIGHT)

    out = grid(largest)
    for x in counts:
        out.append(below(across(x), 20, f"{x:,}"))
    out.append(below((LEFT + WIDTH - RIGHT) / 2, 40, x_label))
    names = sorted(lines, key=lambda name: height(lines[name][-1][1], largest))
    for name, label in zip(names, apart([height(lines[name][-1][1], largest) for name in names])):
        points = [f"{across(x):.1f} {height(y, largest):.1f}" for x, y in lines[name]]
        dots = "".join('<circle cx="{}" cy="{}" r="2.5"/>'.format(*point.split()) for point in points)
        words = f"{escape(name)} {number(lines[name][-1][1])}"
        text = f'<text x="{WIDTH - RIGHT + 10}" y="{label + 5:.1f}">{words}</text>'
        kind = "ours" if name == ours else "other"
        out.append(f'<g class="{kind}"><path d="M {" L ".join(points)}"/>{dots}{text}</g>')
    told = "; ".join(f"{name}: {', '.join(f'{number(y)} at {x:,}' for x, y in line)}" for name, line in lines.items())
    return document(title, told, out)


class Bar(NamedTuple):
    """One bar, and the least and the most that it may be."""

    name: str
    value: float
    least: float
    most: float


# Of other contestants, in the order in which they come, so that a bar is found in each group.
COLOURS = ("#c9b458", "#8fb8a8", "#5f8fa8", "#b48ead", "#c98a6b", "#9a9a9a")
CUT = 2.5  # medians of all: a bar that is higher is cut, and says how high it is


def bars(groups: dict[str, list[Bar]], ours: str, title: str, x_label: str) -> str:
    """Return SVG of `groups` of bars; each bar has its margin, and its colour is explained at the right."""
    every = [bar for group in groups.values() for bar in group]
    names = list(dict.fromkeys(bar.name for bar in every))
    colours = dict(zip([name for name in names if name != ours], COLOURS * len(names)))
    most = max(bar.most for bar in every)
    largest = min(most, CUT * sorted(bar.value for bar in every)[len(every) // 2])
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = room / (len(names) + 1)
    out = grid(largest)
    for i, (label, group) in enumerate(groups.items()):
        left = LEFT + room * i
        out.append(below(left + room / 2, 20, label))
        for bar in group:
            x = left + width * (names.index(bar.name) + 0.5)
            out.append(column(bar, x, width, largest, colours.get(bar.name)))
    out.append(below((LEFT + WIDTH - RIGHT) / 2, 40, x_label))
    for i, name in enumerate(names):
        y = TOP + LINE_HEIGHT * (i + 1)
        kind, fill = ("ours", "") if name == ours else ("other", f' style="fill: {colours[name]}"')
        square = f'<rect x="{WIDTH - RIGHT + 12}" y="{y - 10}" width="11" height="11"{fill}/>'
        out.append(f'<g class="{kind}">{square}<text x="{WIDTH - RIGHT + 30}" y="{y}">{escape(name)}</text></g>')
    told = "; ".join(
        f"{label}: " + ", ".join(f"{bar.name} {number(bar.value)}" for bar in group) for label, group in groups.items()
    )
    return document(title, told, out)


def column(bar: Bar, x: float, width: float, largest: float, colour: str | None) -> str:
    """Return `bar` with its margin, cut at `largest`; without a `colour` it is ours."""
    top = height(min(bar.value, largest), largest)
    kind, fill = ("ours", "") if colour is None else ("other", f' style="fill: {colour}"')
    shape = (
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{width * 0.9:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"{fill}>'
        f"<title>{escape(bar.name)} {number(bar.value)} ({number(bar.least)}–{number(bar.most)})</title></rect>"
    )
    middle = x + width * 0.45
    if bar.value > largest:
        at = f'x="{middle:.1f}" y="{top - 5:.1f}"'
        shape += f'<text class="quiet" {at} text-anchor="middle">{number(bar.value)}</text>'
    elif bar.least < bar.most:
        low, high = height(bar.least, largest), height(min(bar.most, largest), largest)
        shape += f'<path class="margin" d="M {middle:.1f} {low:.1f} V {high:.1f}"/>'
    return f'<g class="{kind}">{shape}</g>'
