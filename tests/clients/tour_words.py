"""What differs from run to run in docker's output, taken out of it."""

from __future__ import annotations

import re

_AMOUNT = r"(?:about |less than )?(?:an?|\d+) (?:second|minute|hour|day|week|month|year)s?"
_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"\r+\n", "\n"),  # a terminal's lines, and the one of the build context's size
        (r"\b[0-9a-f]{64}\b", "<id>"),
        (r"\b[0-9a-f]{12}\b", "<id>"),
        (r"\b(file|dir):[0-9a-f]{8,}…", r"\1:<sum>"),  # in a history: over the copied files and their times
        (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", "<time>"),
        (rf"\b{_AMOUNT}\b", "<time>"),
        (r"\bexecDuration=\d+", "execDuration=<seconds>"),
        (r"(?<![./\w])\d+(?:\.\d+)?\s?[kMGT]?i?B\b", "<size>"),
        (r"\b\d+(?:\.\d+)?%", "<share>"),
        (r"\b172\.\d+\.\d+\.\d+\b", "<address>"),
        (r"\b127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:<port>"),
        (r"\A(?:DEPRECATED: The legacy builder .*\n(?: +\S.*\n)+\n)", ""),  # of the client, since 23
        (r'^time="<time>" level=error msg="error waiting for container: context canceled"\n', ""),  # of 20.10, now and then
        # How a client ends what it says of its own command line or of a refusal.
        (r"^(docker: .*)\.$", r"\1"),
        (r"\n(?:\nUsage:  docker run .*\n)?\n?(?:See|Run) 'docker(?: run)? --help'(?: for more information)?\.?$", ""),
        (r"[ \t]+$", ""),
        (r"(?<=\S) {2,}|\t+", "  "),  # columns are as wide as what is in them
        (r"^\d+  ", "<pid>  "),
    )
)


def plain(text: str, folder: str) -> str:
    """`text` without ids, times, sizes, addresses and the widths of columns; `folder` is the one that docker ran in."""
    if "\0" in text:
        return "<archive>"
    text = text.replace(folder, "<folder>")
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
