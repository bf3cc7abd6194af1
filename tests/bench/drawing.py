"""Shapes, and how they become SVG or PNG. Pure: one picture, two forms, no drawing library."""

from __future__ import annotations

import gzip
import itertools
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Colour = tuple[int, int, int]
Point = tuple[float, float]

GLYPH_HEIGHT = 16
GLYPH_WIDTH = 8
_PSF1 = b"\x36\x04"
_ASCENT = 12  # pixels of a glyph above the base line
_PLAIN = str.maketrans({"–": "-", "×": "x", "≤": "<", "…": ".", "µ": "u"})


@dataclass(frozen=True)
class Box:
    """A filled rectangle; `x` and `y` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: Colour


@dataclass(frozen=True)
class Curve:
    """A line through points."""

    points: tuple[Point, ...]
    colour: Colour


@dataclass(frozen=True)
class Text:
    """A line of text on a base line at `y`; `anchor` says which part of it is at `x`: start, middle or end."""

    x: float
    y: float
    words: str
    anchor: str = "start"
    colour: Colour = (34, 34, 34)


Shape = Box | Curve | Text


@dataclass(frozen=True)
class Picture:
    """Shapes on white, later ones over earlier ones."""

    width: int
    height: int
    shapes: tuple[Shape, ...]


def svg(picture: Picture) -> str:
    """Return the picture as SVG."""
    size = f'width="{picture.width}" height="{picture.height}" viewBox="0 0 {picture.width} {picture.height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        *(_svg_shape(shape) for shape in picture.shapes),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _svg_shape(shape: Shape) -> str:
    colour = "#{:02x}{:02x}{:02x}".format(*shape.colour)
    match shape:
        case Box(x, y, width, height):
            return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
        case Curve(points):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        case Text(x, y, words, anchor):
            place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
            return f"<text {place}>{escape(words)}</text>"


@dataclass(frozen=True)
class Font:
    """A console font (psf(4), version 1) of 8 by 16 pixels; its first glyphs are ASCII's."""

    glyphs: bytes

    @classmethod
    def read(cls, packed: bytes) -> Font:
        """Read a compressed font file. Raises ValueError when it is of another kind."""
        data = gzip.decompress(packed)
        if data[:2] != _PSF1 or data[3] != GLYPH_HEIGHT:
            raise ValueError("not a console font of 8 by 16 pixels")
        return cls(data[4:])

    def rows(self, letter: str) -> bytes:
        """Return the 16 rows of a letter, the leftmost pixel in the highest bit."""
        number = ord(letter) if ord(letter) < 128 else ord("?")
        return self.glyphs[number * GLYPH_HEIGHT : (number + 1) * GLYPH_HEIGHT]


class _Canvas:
    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows = [bytearray(b"\xff" * (3 * width)) for _ in range(height)]

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        left, right = max(0, round(x)), min(self.width, max(round(x + width), round(x) + 1))
        for row in range(max(0, round(y)), min(self.height, max(round(y + height), round(y) + 1))):
            if right > left:
                self.rows[row][3 * left : 3 * right] = bytes(colour) * (right - left)

    def line(self, start: Point, end: Point, colour: Colour) -> None:
        steps = max(1, round(max(abs(end[0] - start[0]), abs(end[1] - start[1]))))
        for step in range(steps + 1):
            x = start[0] + (end[0] - start[0]) * step / steps
            y = start[1] + (end[1] - start[1]) * step / steps
            self.box(x - 1, y - 1, 2, 2, colour)

    def text(self, text: Text, font: Font) -> None:
        words = text.words.translate(_PLAIN)
        width = GLYPH_WIDTH * len(words)
        left = round(text.x) - {"start": 0, "middle": width // 2, "end": width}[text.anchor]
        top = round(text.y) - _ASCENT
        for position, letter in enumerate(words):
            for number, bits in enumerate(font.rows(letter)):
                for column in range(GLYPH_WIDTH):
                    if bits & (0x80 >> column):
                        self.box(left + position * GLYPH_WIDTH + column, top + number, 1, 1, text.colour)


def png(picture: Picture, font: Font) -> bytes:
    """Return the picture as PNG (8 bits a channel, no filter)."""
    canvas = _Canvas(picture.width, picture.height)
    for shape in picture.shapes:
        match shape:
            case Box(x, y, width, height, colour):
                canvas.box(x, y, width, height, colour)
            case Curve(points, colour):
                for start, end in itertools.pairwise(points):
                    canvas.line(start, end, colour)
            case Text():
                canvas.text(shape, font)
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in canvas.rows), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, (b"IHDR", b"IDAT", b"IEND"), (header, pixels, b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Return the pictures one below the other."""
    shapes: list[Shape] = []
    top = 0
    for picture in pictures:
        shapes += [_moved(shape, top) for shape in picture.shapes]
        top += picture.height
    return Picture(max(picture.width for picture in pictures), top, tuple(shapes))


def _moved(shape: Shape, down: float) -> Shape:
    match shape:
        case Box(x, y, width, height, colour):
            return Box(x, y + down, width, height, colour)
        case Curve(points, colour):
            return Curve(tuple((x, y + down) for x, y in points), colour)
        case Text(x, y, words, anchor, colour):
            return Text(x, y + down, words, anchor, colour)
