"""Start and stop of the machine, as several commands have it, and what a start shows while it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pybox.cli import output
from pybox.cli.context import Context

if TYPE_CHECKING:
    from pybox.app.machines import Phase, Started


class PhasePrinter:
    """Shows a start as it goes: each phase with its time when verbose, else a line at the end."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._began = time.monotonic()

    def __call__(self, phase: Phase) -> None:
        if self._verbose or phase.remark:
            remark = f"  {phase.remark}" if phase.remark else ""
            output.note(f"{phase.seconds:8.2f} s  {phase.name}{remark}")

    def step(self, text: str, done: int = 0, total: int = 0) -> None:
        """Work before the machine itself starts (the guest image)."""
        if sys.stderr.isatty():
            counter = f" {100 * done // total}%" if total else ""
            click.echo(f"\r\x1b[2K{text}{counter}", nl=False, err=True)
            if total and done >= total:
                click.echo(err=True)
        elif done == 0:
            output.note(text)


def start_machine(context: Context, *, verbose: bool, discard: bool = False) -> None:
    """`pybox start`."""
    running = context.machines.start(context.machine, PhasePrinter(verbose=verbose), discard=discard)
    say_started(context, running)
    if not running.was_running:
        output.say('Point docker at it with: eval "$(pybox shellinit)"')


def say_started(context: Context, running: Started) -> None:
    """Say how a start, or a resume, has ended."""
    verb = "resumed" if running.was_suspended else "started"
    word = "is already running" if running.was_running else f"{verb} in {running.seconds:.1f} s"
    output.say(f'Machine "{context.machine}" {word}.')


def stop_machine(context: Context, *, timeout: float, discard: bool = False) -> None:
    """`pybox stop`."""
    stopped = context.machines.stop(context.machine, timeout, PhasePrinter(verbose=False), discard=discard)
    output.say(f'Machine "{context.machine}" {"stopped" if stopped else "is not running"}.')


def restart_machine(context: Context, *, verbose: bool, discard: bool = False) -> None:
    """`pybox restart`."""
    context.machines.stop(context.machine, 30, PhasePrinter(verbose=verbose), discard=discard)
    start_machine(context, verbose=verbose)


def discard_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that gives a suspended machine's memory up."""
    return click.option(
        "--discard", is_flag=True, help="Machine: give up its saved memory if it is suspended, as after a power failure."
    )(command)
