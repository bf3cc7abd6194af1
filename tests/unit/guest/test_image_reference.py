"""Vectors of github.com/distribution/reference: reference_test.go and normalize_test.go."""

from __future__ import annotations

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.image.reference import is_digest, is_tag, parse

HEX = "a" * 64
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04", "ubuntu:24.04"),
        ("me/app:1", "docker.io/me/app:1", "me/app:1"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("index.docker.io/me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("docker.io/library/me/app", "docker.io/library/me/app:latest", "library/me/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest"),
        ("[2001:db8::1]:5000/repo", "[2001:db8::1]:5000/repo:latest", "[2001:db8::1]:5000/repo:latest"),
        ("ghcr.io/a/b_c/d__e/f-g:T.1", "ghcr.io/a/b_c/d__e/f-g:T.1", "ghcr.io/a/b_c/d__e/f-g:T.1"),
        ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
        (f"ubuntu@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}", f"ubuntu@{DIGEST}"),
        (f"ubuntu:1@{DIGEST}", f"docker.io/library/ubuntu:1@{DIGEST}", f"ubuntu:1@{DIGEST}"),
        ("a--b/c---d", "docker.io/a--b/c---d:latest", "a--b/c---d:latest"),
    ],
)
def test_names_are_normalised_and_shortened_again(text: str, full: str, familiar: str) -> None:
    found = parse(text).with_default_tag()
    assert str(found) == full
    assert found.familiar == familiar
    assert parse(familiar).with_default_tag() == parse(full) == found


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", "a@", "-a", "a-", "a..b", "a___b", "a//b", "/a", "a/", "a b", "a:b:c", "a:-x", "a\n", "a:t\n", "é",
     f"a:{'x' * 129}", "../a", "a/../b", "http://a/b", "a@sha256:12", "localhost:port/a", "_a/b", f"a@SHA256:{HEX}x"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


def test_refusals_have_dockers_words() -> None:
    for text, words in (
        ("a b", "invalid reference format"),
        ("Ubuntu", "invalid reference format: repository name (library/Ubuntu) must be lowercase"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a/" * 128 + "a", "repository name must not be more than 255 characters"),
        (f"a@sha1:{HEX}", "unsupported digest algorithm"),
        (f"a@sha256:{HEX[1:]}", "invalid checksum digest format"),
        (f"a@sha256:{HEX.upper()}", "invalid checksum digest format"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            parse(text)
        assert str(caught.value) == words


def test_digests_and_tags() -> None:
    assert is_digest(DIGEST) and is_digest(f"sha512:{HEX}{HEX}")
    assert not is_digest(HEX) and not is_digest(f"sha256:{HEX}/") and not is_digest("sha256:../../x")
    assert is_tag("1.0_a-b") and not is_tag(".1") and not is_tag("a/b") and not is_tag("")
