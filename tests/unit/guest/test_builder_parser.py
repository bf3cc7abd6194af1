"""Dockerfile text -> instructions: continued lines, comments, directives, here-documents, errors with lines."""

from __future__ import annotations

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder import instructions as i
from pyboxd.image.builder.parser import RawInstruction, json_list, parse, parse_line
from pyboxd.image.builder.stages import Recipe, divide, needed, with_bases


def raws(text: str) -> list[RawInstruction]:
    return list(parse(text.encode()).instructions)


def shown(text: str) -> list[tuple[int, str, str]]:
    return [(raw.line, raw.name, raw.rest) for raw in raws(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN b\n", [(1, "FROM", "a"), (2, "RUN", "b")]),
        ("from a\r\nrun b\r\n", [(1, "FROM", "a"), (2, "RUN", "b")]),
        ("\ufefffrom a", [(1, "FROM", "a")]),
        ("# comment\n\n  FROM   a  \n", [(3, "FROM", "a")]),
        ("RUN a \\\n b \\\n c\nRUN d", [(1, "RUN", "a  b  c"), (4, "RUN", "d")]),
        ("RUN a \\\n# comment\n\n   # another\n b", [(1, "RUN", "a  b")]),
        ("RUN a \\  \n b", [(1, "RUN", "a  b")]),
        ("RUN a \\\\\nRUN b", [(1, "RUN", "a \\\\"), (2, "RUN", "b")]),
        ("RUN a \\", [(1, "RUN", "a")]),
        ("RUN echo '# no comment'", [(1, "RUN", "echo '# no comment'")]),
        ("# escape=`\nRUN a `\n b \\\nRUN c", [(2, "RUN", "a  b \\"), (4, "RUN", "c")]),
        ("# syntax=x\n# Escape = `\nRUN a `\nb", [(3, "RUN", "a b")]),
        ("# just words\n# escape=`\nRUN a \\\nb", [(3, "RUN", "a b")]),
        ("RUN\ta\tb", [(1, "RUN", "a\tb")]),
    ],
)
def test_lines(text: str, expected: list[tuple[int, str, str]]) -> None:
    assert shown(text) == expected


def test_flags() -> None:
    (raw,) = raws('COPY --from=x --chown="a b" --link -- --src /dst')
    assert raw.flags == ("--from=x", "--chown=a b", "--link")
    assert raw.rest == "--src /dst"


def test_heredoc() -> None:
    raw, after = raws("RUN <<EOF\n# not a comment\necho \\\n  $x\n\nEOF\nCMD x")
    assert raw.heredocs[0].content == "# not a comment\necho \\\n  $x\n\n"
    assert raw.heredocs[0].expand
    assert (after.line, after.name) == (7, "CMD")


def test_heredocs_of_one_line() -> None:
    (raw,) = raws("COPY <<a <<-'b c' 3<<\"d\" /x/\n1\na\n\t2\n\tb c\n3\nd\n")
    assert [(h.name, h.content, h.expand, h.chomp, h.descriptor) for h in raw.heredocs] == [
        ("a", "1\n", True, False, ""),
        ("b c", "2\n", False, True, ""),
        ("d", "3\n", False, False, "3"),
    ]


@pytest.mark.parametrize("line", ["RUN --security=insecure id", "RUN --security=insecure --security=sandbox id"])
def test_privileges_are_refused(line: str) -> None:
    """CVE-2024-23653: a Dockerfile, or a frontend that speaks for it, cannot take more rights than the builder gave."""
    with pytest.raises(InvalidArgument, match="security"):
        interpreted(line)


@pytest.mark.parametrize(
    "line", ["RUN echo '<<EOF'", 'RUN ["echo", "<<EOF"]', "RUN a << b", "ENV x=<<EOF", "RUN cat <<<EOF"]
)
def test_no_heredoc(line: str) -> None:
    assert [raw.heredocs for raw in raws(f"{line}\nRUN x")] == [(), ()]


def test_heredoc_behind_a_continued_line() -> None:
    (raw,) = raws("RUN cat \\\n <<EOF > /x\nhello\nEOF")
    assert raw.rest == "cat  <<EOF > /x"
    assert raw.heredocs[0].content == "hello\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        (" \n\n", "the Dockerfile (Dockerfile) cannot be empty"),
        ("# only\n", "file with no instructions"),
        ("FROM a\nFRM b", "dockerfile parse error on line 2: unknown instruction: FRM"),
        ("FROM a\n\nRUN <<EOF\nx", "dockerfile parse error on line 3: unterminated heredoc"),
        ("RUN x", "no build stage in current context"),
        ("ARG x", "no build stage in current context"),
        ("# escape=x\nFROM a", "dockerfile parse error on line 1: invalid ESCAPE token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM a", "dockerfile parse error on line 2: only one escape parser directive can be used"),
        ("FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("FROM a\nCOPY x", "COPY requires at least two arguments, but only one was provided."),
        ("FROM a\nCOPY --frm=x a b", "dockerfile parse error on line 2: unknown flag: frm"),
        ("FROM a\nCOPY --from a b", "dockerfile parse error on line 2: missing a value on flag: from"),
        ("FROM a\nRUN", "dockerfile parse error on line 2: RUN requires at least one argument"),
        ("FROM a\nENV", "dockerfile parse error on line 2: ENV requires at least one argument"),
        ("FROM a\nENV a", "dockerfile parse error on line 2: ENV must have two arguments"),
        ("FROM a\nENV a=b c", 'can\'t find = in "c". Must be of the form: name=value'),
        ("FROM a\nSHELL /bin/sh", "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nONBUILD FROM b", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD ONBUILD RUN b", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM a\nHEALTHCHECK FOO x", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("FROM a\nHEALTHCHECK --interval=1 CMD x", 'time: missing unit in duration "1"'),
        ("FROM a AS 1x", 'invalid name for build stage: "1x"'),
        ("FROM a\nCOPY x <<EOF\nEOF", "COPY cannot accept a heredoc as a destination"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        divide(parse(text.encode()))
    assert message in str(caught.value)


def test_json_list() -> None:
    assert json_list('["a", "b"]') == ["a", "b"]
    assert json_list("['a']") is None
    assert json_list('["a", 1]') is None
    assert json_list("[ -e x ]") is None
    assert json_list("[" * 100_000) is None


def interpreted(line: str) -> i.Instruction:
    return divide(parse(f"FROM x\n{line}".encode())).stages[0].instructions[0]


def test_typed_instructions() -> None:
    run = interpreted('RUN ["a", "b"]')
    assert isinstance(run, i.Run) and run.command == i.Command(("a", "b"), shell=False)
    run = interpreted("RUN --mount=type=tmpfs,target=/t --network=none a  b")
    assert isinstance(run, i.Run) and run.command == i.Command(("a  b",), shell=True)
    assert run.mounts == ("type=tmpfs,target=/t",) and run.network == "none"
    env = interpreted("ENV a b  c")
    assert isinstance(env, i.Env) and env.pairs == (("a", "b  c"),)
    env = interpreted("ENV a=1 b='2 3' c=4\\ 5")
    assert isinstance(env, i.Env) and env.pairs == (("a", "1"), ("b", "'2 3'"), ("c", "4\\ 5"))
    arg = interpreted("ARG a b=c")
    assert isinstance(arg, i.Arg) and arg.arguments == (("a", None), ("b", "c"))
    copy = interpreted('COPY --chmod=755 ["a b", "c", "/d/"]')
    assert isinstance(copy, i.Copy) and (copy.sources, copy.target, copy.mode) == (("a b", "c"), "/d/", "755")
    check = interpreted("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl x")
    assert isinstance(check, i.HealthcheckInstruction)
    assert (check.check.test, check.check.interval) == (("CMD-SHELL", "curl x"), 90_000_000_000)
    trigger = interpreted("ONBUILD RUN <<EOF\nhello\nEOF")
    assert isinstance(trigger, i.OnBuild)
    raw = parse_line(trigger.trigger, 1)
    assert (raw.name, raw.heredocs[0].content) == ("RUN", "hello\n")


STAGES = """
ARG version=1
FROM base:$version AS build
FROM build AS test
RUN test
FROM other
FROM scratch AS Final
COPY --from=build /a /a
COPY --from=2 /b /b
"""


def recipe(text: str = STAGES) -> Recipe:
    return with_bases(divide(parse(text.encode())), {"version": "2"})


@pytest.mark.parametrize(
    ("target", "indexes"),
    [("", [0, 2, 3]), ("final", [0, 2, 3]), ("FINAL", [0, 2, 3]), ("test", [0, 1]), ("build", [0]), ("2", [2])],
)
def test_needed_stages(target: str, indexes: list[int]) -> None:
    assert [stage.index for stage in needed(recipe(), target)] == indexes


def test_base_of_a_stage() -> None:
    assert recipe().stages[0].start.base == "base:2"
    assert recipe().stages[0].start.text == "FROM base:$version AS build"


def test_unknown_target() -> None:
    with pytest.raises(InvalidArgument, match='target stage "x" could not be found'):
        needed(recipe(), "x")


def test_stage_that_an_onbuild_copies_from_is_needed() -> None:
    text = "FROM a AS tools\nFROM b AS base\nONBUILD COPY --from=tools /x /x\nFROM base\n"
    assert [stage.index for stage in needed(recipe(text), "")] == [0, 1, 2]
