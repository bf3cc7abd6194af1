"""Groups whose commands are imported when they are called: `pybox ps` must not pay for `pybox build`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """Lists commands by their `places`: name -> (module below pybox.cli, name in that module's COMMANDS)."""

    def __init__(self, *args: Any, places: Mapping[str, tuple[str, str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._places:
            return None
        module, name = self._places[cmd_name]
        command: click.Command = importlib.import_module(f"pybox.cli.{module}").COMMANDS[name]
        return command
