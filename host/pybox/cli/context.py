"""What every command needs: the machine's name, the settings, a client of its engine. Made on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from pybox.errors import UsageProblem

if TYPE_CHECKING:
    from pybox.app.fresh import Fresh
    from pybox.app.logins import Logins
    from pybox.app.machines import Machines
    from pybox.engine.client import EngineClient
    from pybox.hostos.interface import Console


class Context:
    """One command's call. `fresh`: it gets a throw-away machine; `at_end` is closed when it has ended."""

    def __init__(self, machine: str, *, debug: bool, fresh: bool) -> None:
        self.machine = machine
        self.debug = debug
        self.fresh = fresh
        self.at_end = ExitStack()

    @cached_property
    def machines(self) -> Machines:
        from pybox.app.compose import machines

        return machines()

    @cached_property
    def client(self) -> EngineClient:
        """The engine of the running machine; MachineError that says how to start it otherwise."""
        from pybox.app.compose import engine

        if self.fresh:
            raise UsageProblem("--fresh does not go with this command", "", "It goes with run, build and test.")
        return engine(self.machine)

    @contextmanager
    def fresh_machine(self, images: Sequence[str]) -> Iterator[Fresh]:
        """A throw-away machine with images of the user's own one; it is gone behind the block."""
        from pybox.app.compose import fresh
        from pybox.cli.starting import PhasePrinter

        made = fresh(self.machine, PhasePrinter(verbose=False))
        try:
            made.open(images)
            yield made
        finally:
            made.close()

    def started_client(self, images: Sequence[str] = ()) -> EngineClient:
        """The engine; starts the machine first when it does not run (`pybox run`).

        With --fresh it is that of a throw-away machine, which has these images, for the rest of the command.
        """
        from pybox.app.compose import engine, engine_or_start
        from pybox.cli.starting import PhasePrinter

        if self.fresh:
            return engine(self.at_end.enter_context(self.fresh_machine(images)).machine)
        return engine_or_start(self.machine, PhasePrinter(verbose=False))

    @cached_property
    def logins(self) -> Logins:
        """The logins to registries that this user has."""
        from pybox.app.compose import logins

        return logins()

    @cached_property
    def console(self) -> Console:
        from pybox.app.compose import console

        return console()


def pass_context(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the Context of the call as its first argument."""
    decorated: Callable[..., Any] = click.make_pass_decorator(Context)(command)
    return decorated
