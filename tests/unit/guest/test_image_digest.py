"""The digest that a thread computes: the same as hashlib's, whatever the pieces, and no thread stays behind."""

from __future__ import annotations

import hashlib
import threading

import pytest

from pyboxd.image.digest import ALONE, StreamDigest


@pytest.mark.parametrize(
    "sizes",
    [(), (0,), (1, 2, 3), (ALONE - 1, 1, 1), (ALONE,), (ALONE, 0, 5), (256 * 1024,) * 40],
)
def test_it_is_the_digest_of_all_pieces(sizes: tuple[int, ...]) -> None:
    data = bytes(range(256)) * (sum(sizes) // 256 + 1)
    threads = threading.active_count()
    with StreamDigest() as digest:
        place = 0
        for size in sizes:
            digest.update(memoryview(data)[place : place + size])
            place += size
        assert digest.hexdigest() == hashlib.sha256(data[:place]).hexdigest()
    assert threading.active_count() == threads


def test_a_stream_that_breaks_off_leaves_no_thread() -> None:
    threads = threading.active_count()
    with pytest.raises(EOFError), StreamDigest() as digest:
        digest.update(bytes(2 * ALONE))
        raise EOFError
    assert threading.active_count() == threads
