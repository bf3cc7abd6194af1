"""What every command needs: the machine's name, the settings, a client of its engine. Made on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pybox.app.machines import Machines
    from pybox.engine.client import EngineClient
    from pybox.hostos.interface import Console


@dataclass
class Context:
    machine: str
    debug: bool = False

    @cached_property
    def machines(self) -> Machines:
        from pybox.app.compose import machines

        return machines()

    @cached_property
    def client(self) -> EngineClient:
        """The engine of the running machine; MachineError that says how to start it otherwise."""
        from pybox.app.compose import engine

        return engine(self.machine)

    def started_client(self) -> EngineClient:
        """The engine; starts the machine first when it does not run (`pybox run`)."""
        from pybox.app.compose import engine_or_start
        from pybox.cli.machine import PhasePrinter

        return engine_or_start(self.machine, PhasePrinter(verbose=False))

    @cached_property
    def console(self) -> Console:
        from pybox.app.compose import console

        return console()


def pass_context(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the Context of the call as its first argument."""
    decorated: Callable[..., Any] = click.make_pass_decorator(Context)(command)
    return decorated
