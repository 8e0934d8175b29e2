"""The picture of a callback's way, in the words of each language.

It is an image, since Markdown is drawn by some who show these pages and not by others; and drawn
here, since what draws a chart from its text is a browser's, or a package as large as all the rest.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Final

Box = tuple[int, int, int, int]

_BOXES: Final[Mapping[str, Box]] = {  # x, y, width, height
    "A360": (10, 10, 270, 36),
    "key": (10, 88, 270, 36),
    "body": (10, 166, 270, 36),
    "batch": (10, 244, 270, 54),
    "update": (10, 346, 270, 72),
    "committed": (10, 476, 270, 54),
    "401": (440, 88, 210, 36),
    "422": (440, 157, 210, 54),
    "spool": (440, 336, 210, 92),
    "kept": (440, 476, 210, 54),
}
_QUESTIONS: Final = {"key", "body"}
_ANSWERS: Final = {"401", "422", "committed", "kept"}

ENGLISH: Final = {
    "A360": "A360",
    "key": "X-API-KEY?",
    "body": "understood?",
    "batch": "a batch: all that came\nwhile the last one ran",
    "update": "UPDATE robots\nSET status = ?\nWHERE deploymentId = ?",
    "committed": "200 updated\nor superseded",
    "401": "401",
    "422": "422, and kept\nfor an operator",
    "spool": "spool, fsynced",
    "kept": "200 queued, unmatched\nor dead_letter",
    "post": "POST /callback",
    "no": "no",
    "yes": "yes",
    "up": "database up",
    "down": "database down",
    "commit": "committed",
    "spooled": "no such row yet,\nrefused for good,\nor not in time",
    "replayed": "replayed when\nthe database or\nthe row is there",
}
SPANISH: Final = {
    "A360": "A360",
    "key": "¿X-API-KEY?",
    "body": "¿se entiende?",
    "batch": "un lote: todo lo que llegó\nmientras corría el anterior",
    "update": ENGLISH["update"],
    "committed": "200 updated\no superseded",
    "401": "401",
    "422": "422, y se guarda\npara un operador",
    "spool": "spool, con fsync",
    "kept": "200 queued, unmatched\no dead_letter",
    "post": "POST /callback",
    "no": "no",
    "yes": "sí",
    "up": "hay base de datos",
    "down": "base de datos caída",
    "commit": "confirmado",
    "spooled": "aún no hay fila,\nrechazado para siempre\no no llegó a tiempo",
    "replayed": "se reintenta cuando\nvuelve la base de datos\no aparece la fila",
}

_HEAD: Final = """\
<!-- Written by tests/support/flow_chart.py: not to be edited by hand. -->
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 540" width="660" height="540">
<style>
  text { font: 15px sans-serif; text-anchor: middle; fill: #1f2328 }
  .on-an-arrow { font-size: 13px; fill: #59636e }
  .beside-it { font-size: 13px; fill: #59636e; text-anchor: start }
  .box { fill: #f6f8fa; stroke: #59636e }
  .question { fill: #fff8c5 }
  .answer { fill: #dafbe1 }
  .spool { fill: #ddf4ff }
  .arrow { fill: none; stroke: #59636e; stroke-width: 1.5; marker-end: url(#head) }
  .later { stroke-dasharray: 5 4 }
</style>
<defs>
  <marker id="head" viewBox="0 0 8 8" refX="8" refY="4" orient="auto"
    markerWidth="8" markerHeight="8">
    <path d="M0 0L8 4L0 8z" fill="#59636e"/>
  </marker>
</defs>
<rect width="660" height="540" fill="#ffffff"/>
"""


def picture(words: Mapping[str, str]) -> str:
    """Return it as SVG."""
    return _HEAD + "\n".join([*_boxes(words), *_arrows(words), "</svg>", ""])


def _boxes(words: Mapping[str, str]) -> Iterator[str]:
    for name, (x, y, width, height) in _BOXES.items():
        if name == "spool":  # a cylinder
            half, middle = width // 2, x + width // 2
            arc = f"a{half} 12 0 0 1 {-width} 0"
            yield f'<path class="box spool" d="M{x + width} {y + 12}v{height - 24}{arc}V{y + 12}"/>'
            yield f'<ellipse class="box spool" cx="{middle}" cy="{y + 12}" rx="{half}" ry="12"/>'
        else:
            kind = " question" * (name in _QUESTIONS) + " answer" * (name in _ANSWERS)
            corner = 18 if name in _QUESTIONS else 4
            yield (
                f'<rect class="box{kind}" x="{x}" y="{y}" width="{width}" height="{height}" '
                f'rx="{corner}"/>'
            )
        yield from _text(words[name], x + width // 2, y + height // 2)


def _arrows(words: Mapping[str, str]) -> Iterator[str]:
    spine = ["A360", "key", "body", "batch", "update", "committed"]
    labels = ["post", "yes", "yes", "up", "commit"]
    for above, below, label in zip(spine, spine[1:], labels, strict=False):
        x, y, width, height = _BOXES[above]
        yield _arrow(f"M{x + width // 2} {y + height}V{_BOXES[below][1]}")
        middle = (y + height + _BOXES[below][1]) // 2
        yield from _text(words[label], x + width // 2 + 12, middle, "beside-it")
    for name in ("key", "body"):
        x, y, width, height = _BOXES[name]
        yield _arrow(f"M{x + width} {y + height // 2}H440")
        yield from _text(words["no"], 360, y + height // 2 - 10, "on-an-arrow")
    yield _arrow("M280 271H545V336")
    yield from _text(words["down"], 360, 261, "on-an-arrow")
    yield _arrow("M280 364H440")
    yield from _text(words["spooled"], 360, 328, "on-an-arrow")
    yield _arrow("M440 400H280", "arrow later")
    yield from _text(words["replayed"], 360, 436, "on-an-arrow")
    yield _arrow("M545 428V476")


def _arrow(path: str, kind: str = "arrow") -> str:
    return f'<path class="{kind}" d="{path}"/>'


def _text(text: str, x: int, middle: int, kind: str = "") -> Iterator[str]:
    lines = text.split("\n")
    height = 17 if kind else 19
    attribute = f' class="{kind}"' if kind else ""
    for number, line in enumerate(lines):
        y = middle + 5 + height * number - height * (len(lines) - 1) // 2
        yield f'<text{attribute} x="{x}" y="{y}">{escape(line)}</text>'
