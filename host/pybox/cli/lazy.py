"""Groups whose commands are imported when they are called: `pybox ps` must not pay for `pybox build`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import click

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


class LazyGroup(click.Group):
    """Lists commands by their `places`: name -> (module below pybox.cli, name in that module's COMMANDS).

    `aliases` are other names of commands, which the help does not list. Flags may be written as Docker's: --rm=false.
    """

    def __init__(
        self,
        *args: Any,
        places: Mapping[str, tuple[str, str]],
        aliases: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self._places = places
        self._aliases = aliases or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self._places.get(self._aliases.get(cmd_name, cmd_name))
        if place is None:
            return None
        module, name = place
        command: click.Command = importlib.import_module(f"pybox.cli.{module}").COMMANDS[name]
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not isinstance(command, click.Group):
            rest = plain_flags(command, rest)
        return name, command, rest


def plain_flags(command: click.Command, words: Sequence[str]) -> list[str]:
    """Words of a command line with "--flag=true" and "--flag=false" as click knows them: with the flag, its opposite, or
    without it.

    Only up to where the words of a program in a container begin. What is no flag, or no value of one, stays as it is.
    """
    if not any("=" in word for word in words):
        return list(words)
    interspersed = command.context_settings.get("allow_interspersed_args", command.allow_interspersed_args)
    options = {name: option for option in command.params if isinstance(option, click.Option) for name in option.opts}
    result: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        option = options.get(name)
        if word == "--" or (not word.startswith("-") and not interspersed):
            return [*result, word, *rest]
        if option is not None and option.is_flag and equals and value in _TRUE | _FALSE:
            result += [name] if value in _TRUE else option.secondary_opts[:1]
            continue
        result.append(word)
        if _wants_another(word, options) and (following := next(rest, None)) is not None:
            result.append(following)
    return result


def _wants_another(word: str, options: Mapping[str, click.Option]) -> bool:
    """Whether the next word is the value of an option in this one ("-it" has none, "-e" and "--env" have one)."""
    if word.startswith("--"):
        return word in options and not options[word].is_flag
    for position, letter in enumerate(word[1:], 2):
        option = options.get(f"-{letter}")
        if option is None or not option.is_flag:
            return option is not None and position == len(word)
    return False
