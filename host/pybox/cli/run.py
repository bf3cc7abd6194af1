"""Commands that run programs in containers: argv -> request -> app."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from pybox.app.containers import ExecRequest, RunRequest
from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.run_flags import container_flags
from pybox.engine.client import EngineClient
from pybox.errors import EngineError, UsageProblem

PASS_THROUGH = {"ignore_unknown_options": False, "allow_interspersed_args": False}


def _request(image: str, command: tuple[str, ...], flags: dict[str, Any], *, detach: bool) -> RunRequest:
    own = {name: flags.pop(name) for name in ("name", "interactive", "tty", "pull")}
    return RunRequest(
        image=image,
        command=command,
        detach=detach,
        interactive=own["interactive"],
        tty=own["tty"],
        name=own["name"],
        pull=own["pull"],
        flags=flags,
    )


def _puller(client: EngineClient, *, quiet: bool = False) -> Callable[[str], None]:
    def fetch(reference: str) -> None:
        from pybox.app.images import pull
        from pybox.cli.progress import PullProgress

        output.note(f"Unable to find image '{reference}' locally")
        with PullProgress(sys.stderr, quiet=quiet) as show:
            pull(client, reference, show)

    return fetch


@click.command(context_settings=PASS_THROUGH)
@click.option("--detach", "-d", is_flag=True, help="Run in the background and print the container's id.")
@click.option("--detach-keys", metavar="KEYS", help="Keys that leave the container running (ctrl-p,ctrl-q).")
@container_flags
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_context
def run(context: Context, image: str, command: tuple[str, ...], detach: bool, **flags: Any) -> int:
    """Create and run a new container from an image.

    \b
    pybox run --rm -it debian:trixie-slim bash
    pybox run -d --name web -p 8080:8080 -v "$PWD":/src app
    """
    from pybox.app import containers

    request = _request(image, command, flags, detach=detach)
    if request.tty and request.interactive and not detach and not context.console.is_terminal():
        raise UsageProblem("the input device is not a TTY", resolution="Leave out -t when input is not a terminal.")
    if detach and context.fresh:
        raise UsageProblem("--fresh and --detach do not go together", "The machine would be gone at once.")
    client = context.started_client([image])
    try:
        if not detach:
            return containers.run(client, request, context.console, _puller(client))
        identity = containers.create(client, request, _puller(client))
        client.post(f"/containers/{identity}/start")
    except EngineError as error:
        if error.exit_code == 1:  # not 126 or 127: the engine itself refused
            error.exit_code = containers.REFUSED
        raise
    output.say(identity)
    return 0


@click.command(context_settings=PASS_THROUGH)
@container_flags
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_context
def create(context: Context, image: str, command: tuple[str, ...], **flags: Any) -> None:
    """Create a new container; `pybox start NAME` runs it."""
    from pybox.app import containers

    client = context.started_client()
    output.say(containers.create(client, _request(image, command, flags, detach=False), _puller(client)))


@click.command("exec", context_settings=PASS_THROUGH)
@click.option("--interactive", "-i", is_flag=True, help="Keep standard input open.")
@click.option("--tty", "-t", is_flag=True, help="Give the command a terminal.")
@click.option("--detach", "-d", is_flag=True, help="Run in the background.")
@click.option("--env", "-e", multiple=True, metavar="NAME[=VALUE]", help="Set an environment variable.")
@click.option("--user", "-u", default="", help="User (and group) that the command runs as.")
@click.option("--workdir", "-w", default="", help="Working directory inside the container.")
@click.option("--privileged", is_flag=True, help="Give all capabilities to the command.")
@click.option("--detach-keys", metavar="KEYS", help="Keys that leave the command running.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_context
def execute(context: Context, container: str, command: tuple[str, ...], **flags: Any) -> int:
    """Execute a command in a running container; ends with its exit status."""
    from pybox.app import containers, options

    if flags["tty"] and flags["interactive"] and not flags["detach"] and not context.console.is_terminal():
        raise UsageProblem("the input device is not a TTY", resolution="Leave out -t when input is not a terminal.")
    keys = flags.pop("detach_keys")
    env = tuple(options.environment(flags.pop("env"), ()))
    return containers.execute(context.client, ExecRequest(container, command, env=env, keys=keys, **flags), context.console)


@click.command()
@click.option("--no-stdin", is_flag=True, help="Do not attach standard input.")
@click.option("--detach-keys", metavar="KEYS", help="Keys that leave the container running.")
@click.argument("container")
@pass_context
def attach(context: Context, container: str, no_stdin: bool, detach_keys: str | None) -> int:
    """Attach standard input, output and error to a running container."""
    from pybox.app import containers

    return containers.attach(context.client, container, context.console, stdin=not no_stdin, keys=detach_keys)


COMMANDS: dict[str, click.Command] = {"run": run, "create": create, "exec": execute, "attach": attach}
