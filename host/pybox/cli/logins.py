"""`pybox login` and `pybox logout`."""

from __future__ import annotations

import sys

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.errors import EngineError, UsageProblem


@click.command()
@click.option("--username", "-u", metavar="NAME", help="User name.")
@click.option("--password", "-p", metavar="TEXT", help="Password, for all to see that look at this computer's processes.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.argument("registry", required=False)
@pass_context
def login(context: Context, registry: str | None, username: str | None, password: str | None, password_stdin: bool) -> None:
    """Log in to a registry (docker's own without one), so that pull, push, build and run are let in.

    \b
    pybox login registry.example.org -u me --password-stdin < token

    The login is kept in pybox's configuration folder, for your eyes only. Those that docker keeps are used, too.
    """
    from pybox.app.logins import Login, log_in, registry_name

    name = registry_name(registry or "")
    if password is not None and password_stdin:
        raise UsageProblem("conflicting options: cannot specify both --password and --password-stdin")
    if password_stdin and not username:
        raise UsageProblem("the --password-stdin option requires --username to be set", "", "Add -u NAME.")
    known = None if username or password else context.logins.find(name)
    if known is not None:
        output.note(f"Authenticating with existing credentials... [Username: {known.user}]")
        try:
            output.say(log_in(context.started_client(), context.logins, known))
            return
        except EngineError as error:
            if not sys.stdin.isatty():
                raise
            output.show_error(error)
    if password is not None:
        output.note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    elif password_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    elif not sys.stdin.isatty():
        raise UsageProblem("Cannot perform an interactive login from a non TTY device", "", "Use -u NAME --password-stdin.")
    user = username or click.prompt("Username", default=known.user if known else None, err=True)
    if password is None:
        password = click.prompt("Password", hide_input=True, err=True)
    output.say(log_in(context.started_client(), context.logins, Login(name, user, str(password))))


@click.command()
@click.argument("registry", required=False)
@pass_context
def logout(context: Context, registry: str | None) -> None:
    """Forget the login to a registry (docker's own without one)."""
    from pybox.app.logins import registry_name

    name = registry_name(registry or "")
    if context.logins.forget(name):
        output.say(f"Removing login credentials for {name}")
    else:
        output.say(f"Not logged in to {name}")
    if context.logins.find(name) is not None:
        output.note(
            f"Docker's configuration still has a login to {name}; remove it with: docker logout {registry or ''}".rstrip()
        )


COMMANDS: dict[str, click.Command] = {"login": login, "logout": logout}
