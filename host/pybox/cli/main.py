"""The command line's entry: the group of commands and the one place where errors become text and exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from pybox.cli import output
from pybox.cli.context import Context
from pybox.cli.lazy import LazyGroup
from pybox.errors import EngineError, PyboxError, UsageProblem

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module below pybox.cli, short help)
    "start": ("both", "Start the machine, or containers"),
    "stop": ("both", "Stop the machine, or containers"),
    "restart": ("both", "Restart the machine, or containers"),
    "suspend": ("machine", "Put the machine's memory into a file and end it"),
    "resume": ("machine", "Let a suspended machine go on"),
    "status": ("machine", "Show what the machine does"),
    "delete": ("machine", "Delete the machine and all it holds"),
    "ip": ("machine", "Print the address where published ports answer"),
    "ssh": ("machine", "Open a shell in the machine, or run a command there"),
    "ssh-config": ("machine", "Print an ssh configuration for the machine"),
    "config": ("machine", "Read and change settings"),
    "shellinit": ("machine", "Print what points docker at the machine"),
    "machine": ("machine", "The machine, in the long form"),
    "test": ("fresh", "Run a program against a clean machine of its own"),
    "run": ("run", "Create and run a new container from an image"),
    "create": ("run", "Create a new container"),
    "exec": ("run", "Execute a command in a running container"),
    "attach": ("run", "Attach to a running container"),
    "ps": ("containers", "List containers"),
    "logs": ("containers", "Fetch the logs of a container"),
    "rm": ("containers", "Remove one or more containers"),
    "kill": ("containers", "Kill one or more running containers"),
    "wait": ("containers", "Block until containers stop, then print their exit codes"),
    "pause": ("containers", "Pause all processes within one or more containers"),
    "unpause": ("containers", "Unpause all processes within one or more containers"),
    "rename": ("containers", "Rename a container"),
    "top": ("facts", "Display the running processes of a container"),
    "port": ("facts", "List port mappings of a container"),
    "stats": ("facts", "Display a live stream of containers' resource usage"),
    "update": ("update", "Change the limits or the restart policy of containers"),
    "cp": ("trees", "Copy files between a container and this computer"),
    "diff": ("trees", "Show what has changed in a container's file system"),
    "commit": ("trees", "Make an image of a container's changes"),
    "export": ("trees", "Write a container's file system as a tar archive"),
    "images": ("images", "List images"),
    "pull": ("transfer", "Download an image from a registry"),
    "push": ("transfer", "Upload an image to a registry"),
    "search": ("transfer", "Search a registry for images"),
    "build": ("build", "Build an image from a Dockerfile"),
    "load": ("transfer", "Load an image from a tar archive"),
    "save": ("transfer", "Save images to a tar archive"),
    "import": ("transfer", "Make an image of a tar archive of files"),
    "tag": ("images", "Create a tag TARGET that refers to SOURCE"),
    "rmi": ("images", "Remove one or more images"),
    "history": ("images", "Show the history of an image"),
    "login": ("logins", "Log in to a registry"),
    "logout": ("logins", "Log out from a registry"),
    "container": ("groups", "Manage containers"),
    "image": ("groups", "Manage images; make base images"),
    "network": ("groups", "Manage networks"),
    "volume": ("groups", "Manage volumes"),
    "system": ("groups", "Disk space, events, removal of what is unused"),
    "inspect": ("inspection", "Return low-level information on containers, images, volumes and networks"),
    "info": ("system", "Display system-wide information"),
    "version": ("system", "Show the versions of pybox and its engine"),
    "events": ("events", "Get real time events from the engine"),
    "completion": ("system", "Print the shell's completion script"),
}


class _Commands(LazyGroup):
    """All commands, under headings in the help, whose texts need none of their modules."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        titles = {
            "both": "Machine and containers",
            "machine": "Machine",
            "fresh": "Machine",
            **dict.fromkeys(("run", "containers", "facts", "update", "trees"), "Containers"),
            **dict.fromkeys(("images", "transfer", "build", "logins"), "Images"),
            "groups": "Groups",
            **dict.fromkeys(("inspection", "system", "events"), "System"),
        }
        for name, (module, text) in COMMANDS.items():
            sections.setdefault(titles[module], []).append((name, text))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def version() -> str:
    """Return this program's version."""
    from importlib.metadata import PackageNotFoundError, version  # a large import, and few ask

    try:
        return version("pybox")
    except PackageNotFoundError:
        return "0 (not installed)"


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        output.say(f"pybox version {version()}")
        ctx.exit()


@click.group(
    cls=_Commands,
    places={name: (module, name) for name, (module, _text) in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`pybox start` makes and starts the machine; `pybox run --help` shows what a container can have.",
)
@click.option("--machine", "-M", envvar="PYBOX_MACHINE", default="default", show_default=True, help="Machine to use.")
@click.option("--fresh", is_flag=True, help="Take a clean machine for this one command (run, build).")
@click.option("--debug", is_flag=True, help="Show a traceback for every error.")
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context, machine: str, fresh: bool, debug: bool) -> None:
    """Containers on your desktop: a small Linux VM and a Docker-compatible engine."""
    ctx.obj = Context(machine=machine, debug=debug, fresh=fresh)
    ctx.call_on_close(ctx.obj.at_end.close)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; its exit status."""
    debug = "--debug" in (arguments if arguments is not None else sys.argv)
    try:
        result = cli.main(args=arguments, prog_name="pybox", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return 125 if _is_run(error) else error.exit_code
    except click.Abort:
        output.note("")
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except PyboxError as error:
        if debug:
            raise
        output.show_error(error)
        return _status(error)
    return result if isinstance(result, int) else 0


def _is_run(error: click.ClickException) -> bool:
    context = getattr(error, "ctx", None)
    return context is not None and context.command.name in ("run", "create", "exec")


def _status(error: PyboxError) -> int:
    if isinstance(error, EngineError):
        return error.exit_code
    return 2 if isinstance(error, UsageProblem) else 1
