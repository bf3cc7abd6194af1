"""Commands that run programs in containers: argv -> request -> app."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pybox.app.containers import ExecRequest, Pull, RunRequest
from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.run_flags import container_flags
from pybox.engine.client import EngineClient
from pybox.errors import EngineError, UsageProblem

PASS_THROUGH = {"ignore_unknown_options": False, "allow_interspersed_args": False}


def _request(
    image: str, command: tuple[str, ...], flags: dict[str, Any], *, detach: bool, sig_proxy: bool = True
) -> RunRequest:
    own = {name: flags.pop(name) for name in ("name", "interactive", "tty", "pull", "platform")}
    flags["attach"] = [stream.lower() for stream in flags["attach"]]
    if wrong := set(flags["attach"]) - {"stdin", "stdout", "stderr"}:
        raise UsageProblem(f'invalid argument "{min(wrong)}" for "-a, --attach" flag', "", "Streams: stdin, stdout, stderr.")
    if flags["attach"] and detach:
        raise UsageProblem("conflicting options: cannot specify both --attach and --detach")
    return RunRequest(
        image=image,
        command=command,
        detach=detach,
        interactive=own["interactive"],
        tty=own["tty"],
        name=own["name"],
        pull=own["pull"],
        platform=own["platform"],
        sig_proxy=sig_proxy,
        flags=flags,
    )


def _puller(context: Context, client: EngineClient, *, quiet: bool, platform: str) -> Pull:
    def fetch(reference: str, missing: bool) -> None:
        from pybox.app.images import pull, split_reference
        from pybox.cli.progress import PullProgress

        if missing and not quiet:
            name, tag = split_reference(reference)
            output.note(f"Unable to find image '{name}{'@' if ':' in tag else ':'}{tag or 'latest'}' locally")
        with PullProgress(sys.stderr, quiet=quiet) as show:
            pull(client, context.logins, reference, show, platform=platform)

    return fetch


@click.command(context_settings=PASS_THROUGH)
@click.option("--detach", "-d", is_flag=True, help="Run in the background and print the container's id.")
@click.option("--detach-keys", metavar="KEYS", help="Keys that leave the container running (ctrl-p,ctrl-q).")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Hand signals on to the container (the default).")
@container_flags
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_context
def run(context: Context, image: str, command: tuple[str, ...], detach: bool, sig_proxy: bool, **flags: Any) -> int:
    """Create and run a new container from an image.

    \b
    pybox run --rm -it debian:trixie-slim bash
    pybox run -d --name web -p 8080:8080 -v "$PWD":/src app
    """
    from pybox.app import containers

    quiet, cidfile = flags.pop("quiet"), flags.pop("cidfile")
    request = _request(image, command, flags, detach=detach, sig_proxy=sig_proxy)
    if request.tty and request.interactive and not detach and not context.console.is_terminal():
        raise UsageProblem("the input device is not a TTY", resolution="Leave out -t when input is not a terminal.")
    if detach and context.fresh:
        raise UsageProblem("--fresh and --detach do not go together", "The machine would be gone at once.")
    client = context.started_client([image])
    puller = _puller(context, client, quiet=quiet, platform=request.platform)
    try:
        identity = _create(client, request, puller, cidfile)
        if not detach:
            return containers.run(client, identity, request, context.console)
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
    quiet, cidfile = flags.pop("quiet"), flags.pop("cidfile")
    request = _request(image, command, flags, detach=False)
    client = context.started_client()
    output.say(_create(client, request, _puller(context, client, quiet=quiet, platform=request.platform), cidfile))


def _create(client: EngineClient, request: RunRequest, pull: Pull, cidfile: str | None) -> str:
    """Create the container, say what the engine warns of, write the file that has its id."""
    from pybox.app import containers

    if cidfile and Path(cidfile).exists():
        raise UsageProblem(f"container ID file found, make sure the other container isn't running or delete {cidfile}")
    identity, warnings = containers.create(client, request, pull)
    for warning in warnings:
        output.note(f"WARNING: {warning}")
    if cidfile:
        Path(cidfile).write_text(identity)
    return identity


@click.command("exec", context_settings=PASS_THROUGH)
@click.option("--interactive", "-i", is_flag=True, help="Keep standard input open.")
@click.option("--tty", "-t", is_flag=True, help="Give the command a terminal.")
@click.option("--detach", "-d", is_flag=True, help="Run in the background.")
@click.option("--env", "-e", multiple=True, metavar="NAME[=VALUE]", help="Set an environment variable.")
@click.option("--env-file", multiple=True, metavar="FILE", help="Read environment variables from a file.")
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
    env = tuple(options.environment(flags.pop("env"), flags.pop("env_file")))
    return containers.execute(context.client, ExecRequest(container, command, env=env, keys=keys, **flags), context.console)


@click.command()
@click.option("--no-stdin", is_flag=True, help="Do not attach standard input.")
@click.option("--detach-keys", metavar="KEYS", help="Keys that leave the container running.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Hand signals on to the container (the default).")
@click.argument("container")
@pass_context
def attach(context: Context, container: str, no_stdin: bool, detach_keys: str | None, sig_proxy: bool) -> int:
    """Attach standard input, output and error to a running container."""
    from pybox.app import containers

    return containers.attach(
        context.client, container, context.console, stdin=not no_stdin, keys=detach_keys, sig_proxy=sig_proxy
    )


COMMANDS: dict[str, click.Command] = {"run": run, "create": create, "exec": execute, "attach": attach}
