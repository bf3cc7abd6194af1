from __future__ import annotations

import gzip
import struct
import xml.etree.ElementTree as ET
import zlib

import pytest

from tests.bench.book import Book
from tests.bench.chart import chart
from tests.bench.drawing import Box, Curve, Font, Picture, Text, png, stacked, svg

WHITE, RED = b"\xff\xff\xff", b"\xff\x00\x00"
# Every letter is one pixel at the upper left and one at the lower right.
FONT = Font((b"\x80" + bytes(14) + b"\x01") * 128)


def pixels(data: bytes) -> list[bytes]:
    """The rows of an RGB picture without filters."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    found = {}
    position = 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (check,) = struct.unpack_from(">I", data, position + 8 + length)
        assert check == zlib.crc32(kind + content)
        found[kind] = content
        position += 12 + length
    width, height = struct.unpack_from(">II", found[b"IHDR"])
    raw = zlib.decompress(found[b"IDAT"])
    rows = [raw[start : start + 1 + 3 * width] for start in range(0, len(raw), 1 + 3 * width)]
    assert len(rows) == height and all(row[0] == 0 for row in rows)
    return [row[1:] for row in rows]


def test_boxes_in_png() -> None:
    rows = pixels(png(Picture(4, 3, (Box(1, 1, 2, 1, (255, 0, 0)),)), FONT))
    assert rows == [WHITE * 4, WHITE + RED * 2 + WHITE, WHITE * 4]


def test_what_is_outside_is_cut_off() -> None:
    rows = pixels(png(Picture(2, 2, (Box(-5, -5, 50, 50, (255, 0, 0)), Curve(((-9, -9), (9, 9)), (0, 0, 0)))), FONT))
    assert len(rows) == 2


def test_letters_in_png() -> None:
    rows = pixels(png(Picture(16, 16, (Text(16, 12, "ab", "end", (255, 0, 0)),)), FONT))
    assert rows[0] == RED + WHITE * 7 + RED + WHITE * 7
    assert rows[15] == WHITE * 7 + RED + WHITE * 7 + RED


def test_a_font_of_another_kind_is_refused() -> None:
    assert Font.read(gzip.compress(b"\x36\x04\x02\x10" + FONT.glyphs)) == FONT
    with pytest.raises(ValueError, match="8 by 16"):
        Font.read(gzip.compress(b"\x72\xb5\x4a\x86" + FONT.glyphs))


def test_svg_is_well_formed() -> None:
    shapes = (Box(0, 0, 1, 1, (1, 2, 3)), Curve(((0, 0), (1, 1)), (0, 0, 0)), Text(0, 0, "a < b & c"))
    root = ET.fromstring(svg(Picture(10, 10, shapes)))
    assert [child.tag.rpartition("}")[2] for child in root] == ["rect", "rect", "polyline", "text"]
    assert root[3].text == "a < b & c"


def test_pictures_one_below_the_other() -> None:
    found = stacked([Picture(10, 20, ()), Picture(30, 5, (Box(1, 2, 3, 4, (0, 0, 0)),))])
    assert (found.width, found.height) == (30, 25)
    assert found.shapes == (Box(1, 22, 3, 4, (0, 0, 0)),)


def test_nothing_measured_is_no_chart() -> None:
    assert chart(Book()) is None


def test_chart_has_a_bar_for_each_ratio_and_the_curves() -> None:
    book = Book()
    book.add("run.bridge", "pybox", 0.2)
    book.add("run.bridge", "stock", 2.0)
    book.add("exec.true", "pybox", 0.2)  # no ratio
    book.add("scale.start.10", "pybox", *[0.1] * 10)
    book.add("scale.start.50", "pybox", *[0.2] * 40)
    book.add("scale.start.10", "stock", *[2.0] * 10)
    found = chart(book)
    assert found is not None
    words = [shape.words for shape in found.shapes if isinstance(shape, Text)]
    assert sum("bridge" in text for text in words) == 1
    assert not any("exec" in text for text in words)
    assert [len(shape.points) for shape in found.shapes if isinstance(shape, Curve)] == [50, 10]
