from __future__ import annotations

from datetime import UTC, datetime

import pysequoia
import pytest

from pybox_image.debian import release
from pybox_image.errors import ImageError
from tests.unit.images.samples import generate_key, public, release_text, sign


@pytest.fixture(scope="module")
def key() -> pysequoia.Tsk:
    return generate_key()


TEXT = release_text("trixie", {"main/binary-amd64/Packages.xz": b"abc"})


def test_a_signed_index_is_read(key: pysequoia.Tsk) -> None:
    found = release.verify(sign(TEXT, key), public(key), codename="trixie")
    assert (found.suite, found.codename, found.by_hash) == ("stable", "trixie", True)
    (entry,) = found.files.values()
    assert (entry.path, entry.size) == ("main/binary-amd64/Packages.xz", 3)
    assert entry.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_suite_name_is_as_good_as_the_codename(key: pysequoia.Tsk) -> None:
    assert release.verify(sign(TEXT, key), public(key), codename="stable").codename == "trixie"


def test_one_flipped_bit_anywhere_in_the_text_is_found(key: pysequoia.Tsk) -> None:
    signed = sign(TEXT, key)
    start = signed.index(b"Origin")
    end = signed.index(b"-----BEGIN PGP SIGNATURE")
    for position in range(start, end, 7):
        damaged = bytearray(signed)
        damaged[position] ^= 1
        if bytes(damaged[position : position + 1]).isspace() and signed[position : position + 1].isspace():
            continue  # the signature does not cover the kind of white space at the end of a line
        with pytest.raises(ImageError):
            release.verify(bytes(damaged), public(key), codename="trixie")


def test_another_key_is_not_enough(key: pysequoia.Tsk) -> None:
    with pytest.raises(ImageError, match="signature"):
        release.verify(sign(TEXT, generate_key()), public(key), codename="trixie")


def test_a_text_without_signature_is_refused(key: pysequoia.Tsk) -> None:
    with pytest.raises(ImageError, match="signature"):
        release.verify(TEXT.encode(), public(key), codename="trixie")


def test_text_around_the_signed_part_is_not_believed(key: pysequoia.Tsk) -> None:
    forged = b"SHA256:\n 00 1 evil\n\n" + sign(TEXT, key) + b"\nSHA256:\n 00 1 evil\n"
    try:
        found = release.verify(forged, public(key), codename="trixie")
    except ImageError:
        return
    assert list(found.files) == ["main/binary-amd64/Packages.xz"]


def test_another_suite_is_refused_although_it_is_signed(key: pysequoia.Tsk) -> None:
    with pytest.raises(ImageError) as caught:
        release.verify(sign(TEXT, key), public(key), codename="bookworm")
    assert "trixie" in caught.value.details


def test_an_expired_index_is_refused(key: pysequoia.Tsk) -> None:
    signed = sign(release_text("trixie", {}, until="Mon, 30 Nov 2026 11:22:38 UTC"), key)
    assert release.verify(signed, public(key), codename="trixie", now=datetime(2026, 11, 30, 11, tzinfo=UTC))
    with pytest.raises(ImageError, match="out of date"):
        release.verify(signed, public(key), codename="trixie", now=datetime(2026, 12, 1, tzinfo=UTC))


def test_the_carried_keyring_has_the_keys_of_trixie() -> None:
    names = [str(user) for cert in pysequoia.Cert.split_bytes(release.archive_keys()) for user in cert.user_ids]
    assert any("Debian Archive Automatic Signing Key (13/trixie)" in name for name in names)
    assert any("Debian Security Archive Automatic Signing Key (13/trixie)" in name for name in names)
