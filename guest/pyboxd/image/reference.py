"""Image references as Docker writes them: parse, normalise, shorten. Pure.

    ubuntu                    -> docker.io/library/ubuntu:latest
    me/app:1                  -> docker.io/me/app:1
    localhost:5000/app@sha256:… -> localhost:5000/app@sha256:…

Grammar and messages follow github.com/distribution/reference (reference.go, normalize.go, regexp.go).
"""

from __future__ import annotations

import re

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen

DEFAULT_DOMAIN = "docker.io"
_OLD_DEFAULT_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_LENGTH = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_TAG_ONLY = re.compile(_TAG)
_HEX_ID = re.compile(r"[a-f0-9]{64}")
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
DIGEST_ALGORITHMS = tuple(_DIGEST_LENGTHS)


@frozen
class Reference:
    """A normalised reference; `tag` and `digest` are "" when absent."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Repository with its registry: `docker.io/library/ubuntu`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """Repository as Docker shows it: `ubuntu`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in short else short

    @property
    def familiar(self) -> str:
        """The whole reference as Docker shows it: `ubuntu:latest`."""
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """The same with tag `latest` when it names neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, "latest")

    def with_tag(self, tag: str) -> Reference:
        """`name:tag`, whatever tag or digest this one has. InvalidArgument."""
        if not is_tag(tag):
            raise InvalidArgument("invalid tag format")
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: str) -> Reference:
        """`name@digest`, without the tag: the form of a repository digest."""
        return Reference(self.domain, self.path, "", digest)


def parse(text: str) -> Reference:
    """Parse and normalise; raises InvalidArgument in Docker's words."""
    if _HEX_ID.fullmatch(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    path = re.split("[:@]", remainder, maxsplit=1)[0]
    if path != path.lower():
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    found = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if found is None or found["domain"] is None:
        raise InvalidArgument("invalid reference format")
    if len(found["path"]) > _NAME_LENGTH:
        raise InvalidArgument(f"repository name must not be more than {_NAME_LENGTH} characters")
    digest = found["digest"] or ""
    if digest:
        check_digest(digest)
    return Reference(found["domain"], found["path"], found["tag"] or "", digest)


def check_digest(digest: str) -> None:
    """Raise InvalidArgument unless `digest` has a known algorithm and its length in lower-case hex."""
    algorithm, _, value = digest.partition(":")
    if algorithm not in _DIGEST_LENGTHS:
        raise InvalidArgument("unsupported digest algorithm")
    if len(value) != _DIGEST_LENGTHS[algorithm] or not re.fullmatch("[0-9a-f]+", value):
        raise InvalidArgument("invalid checksum digest format")


def is_digest(text: str) -> bool:
    """True for `algorithm:hex` of an algorithm that is accepted here."""
    try:
        check_digest(text)
    except InvalidArgument:
        return False
    return True


def is_tag(text: str) -> bool:
    """True if `text` can stand behind the colon."""
    return _TAG_ONLY.fullmatch(text) is not None


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or (not set(".:") & set(first) and first != "localhost" and first.lower() == first):
        domain, remainder = DEFAULT_DOMAIN, text
    else:
        domain, remainder = first, rest
    if domain == _OLD_DEFAULT_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder
