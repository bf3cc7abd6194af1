"""Docker's flags of `run` and `create`, once, as click options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def _many(*names: str, help: str, metavar: str = "LIST") -> Callable[[Command], Command]:
    return click.option(*names, multiple=True, metavar=metavar, help=help)


# What `update` can change, too.
LIMITS: tuple[Callable[[Command], Command], ...] = (
    click.option("--memory", "-m", metavar="BYTES", help="Memory limit (256m, 2g)."),
    click.option("--memory-swap", metavar="BYTES", help="Memory plus swap; -1 for unlimited swap."),
    click.option("--memory-reservation", metavar="BYTES", help="Memory that is protected from reclaim."),
    click.option("--cpus", metavar="NUMBER", help="Number of CPUs (0.5)."),
    click.option("--cpu-shares", "-c", type=int, help="CPU shares (relative weight)."),
    click.option("--cpu-quota", type=int, help="CPU time per period, in microseconds."),
    click.option("--cpu-period", type=int, help="The period, in microseconds."),
    click.option("--cpu-rt-period", type=int, help="Period of real-time processes, in microseconds."),
    click.option("--cpu-rt-runtime", type=int, help="Their time per period, in microseconds."),
    click.option("--cpuset-cpus", metavar="0-1", help="CPUs that may be used."),
    click.option("--cpuset-mems", metavar="0-1", help="Memory nodes that may be used."),
    click.option("--pids-limit", type=int, help="Number of processes; -1 for unlimited."),
    click.option("--blkio-weight", type=int, help="Block I/O weight, 10 to 1000."),
)
FLAGS: tuple[Callable[[Command], Command], ...] = (
    _many(
        "--publish",
        "-p",
        metavar="[ADDRESS:][HOST:]PORT[/udp]",
        help="Publish a container's port on the host.",
    ),
    click.option("--publish-all", "-P", is_flag=True, help="Publish all exposed ports to random ports."),
    _many("--expose", help="Expose a port or a range of ports.", metavar="PORT"),
    _many("--volume", "-v", metavar="SOURCE:TARGET[:ro]", help="Share a folder of the host, or use a volume."),
    _many("--mount", metavar="type=…,source=…,target=…", help="The same, spelled out."),
    _many("--volumes-from", metavar="CONTAINER[:ro]", help="Mount the volumes of another container."),
    click.option("--volume-driver", help="Driver of volumes that are made for it."),
    _many("--tmpfs", help="Mount a tmpfs folder.", metavar="PATH"),
    _many("--env", "-e", metavar="NAME[=VALUE]", help="Set an environment variable."),
    _many("--env-file", help="Read environment variables from a file.", metavar="FILE"),
    _many("--label", "-l", metavar="KEY=VALUE", help="Set metadata on the container."),
    _many("--label-file", metavar="FILE", help="Read labels from a file, one a line."),
    _many("--annotation", metavar="KEY=VALUE", help="Set an annotation on the container."),
    click.option("--user", "-u", metavar="NAME|UID[:GROUP]", help="User (and group) that the command runs as."),
    click.option("--workdir", "-w", metavar="PATH", help="Working directory inside the container."),
    click.option("--hostname", "-h", help="Host name of the container."),
    click.option("--domainname", help="NIS domain name of the container."),
    click.option("--entrypoint", help="Overwrite the image's ENTRYPOINT."),
    *LIMITS,
    _many("--blkio-weight-device", metavar="PATH:WEIGHT", help="Block I/O weight of one device."),
    click.option("--memory-swappiness", type=int, default=-1, help="Willingness to swap, 0 to 100."),
    click.option("--oom-kill-disable", is_flag=True, help="Do not kill its processes for want of memory."),
    _many("--device-read-bps", metavar="PATH:RATE", help="Limit reading from a device (bytes a second)."),
    _many("--device-write-bps", metavar="PATH:RATE", help="Limit writing to a device (bytes a second)."),
    _many("--device-read-iops", metavar="PATH:RATE", help="Limit reading from a device (operations a second)."),
    _many("--device-write-iops", metavar="PATH:RATE", help="Limit writing to a device (operations a second)."),
    click.option("--shm-size", metavar="BYTES", help="Size of /dev/shm (64m)."),
    _many("--ulimit", metavar="NAME=SOFT[:HARD]", help="Limit of a resource."),
    _many("--sysctl", metavar="KEY=VALUE", help="Kernel setting of the container's namespaces."),
    _many(
        "--network",
        "--net",
        metavar="NAME[,alias=…,ip=…]",
        help="Network: bridge (default), none, host, container:NAME, or one of your own; several times for several.",
    ),
    _many("--network-alias", help="Name of the container in a user-defined network.", metavar="NAME"),
    click.option("--ip", metavar="ADDRESS", help="IPv4 address in that network."),
    click.option("--ip6", metavar="ADDRESS", help="IPv6 address in that network."),
    _many("--link-local-ip", help="Link-local address in that network.", metavar="ADDRESS"),
    click.option("--mac-address", metavar="ADDRESS", help="MAC address in that network."),
    _many("--link", metavar="CONTAINER[:ALIAS]", help="Name for another container."),
    _many("--add-host", metavar="NAME:ADDRESS", help="Line of /etc/hosts; host-gateway is the host."),
    _many("--dns", help="DNS server.", metavar="ADDRESS"),
    _many("--dns-option", "--dns-opt", help="Option of the resolver.", metavar="OPTION"),
    _many("--dns-search", help="DNS search domain.", metavar="DOMAIN"),
    click.option("--restart", default="no", metavar="POLICY", help="no, on-failure[:N], always, unless-stopped."),
    click.option("--rm", is_flag=True, help="Remove the container when it exits."),
    click.option("--init", is_flag=True, help="Run an init inside that forwards signals and reaps processes."),
    _many("--cap-add", help="Add a Linux capability.", metavar="NAME"),
    _many("--cap-drop", help="Drop a Linux capability.", metavar="NAME"),
    click.option("--privileged", is_flag=True, help="Give all capabilities and devices to the container."),
    click.option("--read-only", is_flag=True, help="Mount the root file system read-only."),
    _many("--security-opt", help="Security option (seccomp=…, no-new-privileges).", metavar="OPTION"),
    _many("--device", metavar="PATH[:PATH[:rwm]]", help="Add a device."),
    _many("--device-cgroup-rule", metavar="RULE", help='Allow a kind of device ("c 42:* rmw").'),
    click.option("--gpus", metavar="all|NUMBER", help="GPUs to add."),
    _many("--group-add", help="Add a group.", metavar="GROUP"),
    click.option("--ipc", metavar="MODE", help="IPC namespace."),
    click.option("--pid", metavar="MODE", help="PID namespace."),
    click.option("--uts", metavar="MODE", help="UTS namespace."),
    click.option("--userns", metavar="MODE", help="User namespace."),
    click.option("--cgroupns", metavar="MODE", help="Cgroup namespace."),
    click.option("--cgroup-parent", metavar="PATH", help="Cgroup that the container's one is made in."),
    click.option("--runtime", help="Runtime of the container."),
    _many("--storage-opt", metavar="KEY=VALUE", help="Option of the storage driver."),
    click.option("--oom-score-adj", type=int, help="Preference of the OOM killer, -1000 to 1000."),
    click.option("--stop-signal", metavar="SIGNAL", help="Signal that stops the container."),
    click.option("--stop-timeout", type=int, help="Seconds before it is killed."),
    click.option("--log-driver", help="json-file, local or none."),
    _many("--log-opt", metavar="KEY=VALUE", help="Option of the log driver."),
    click.option("--health-cmd", metavar="COMMAND", help="Command that checks the container's health."),
    click.option("--health-interval", metavar="30s", help="Time between two checks."),
    click.option("--health-timeout", metavar="30s", help="Time that one check may take."),
    click.option("--health-start-period", metavar="0s", help="Time in which failures do not count."),
    click.option("--health-start-interval", metavar="5s", help="Time between two checks in that time."),
    click.option("--health-retries", type=int, default=0, help="Failures until unhealthy."),
    click.option("--no-healthcheck", is_flag=True, help="Disable the image's HEALTHCHECK."),
    click.option("--pull", type=click.Choice(["always", "missing", "never"]), default="missing", show_default=True),
    click.option("--platform", default="", help="Platform of the image (linux/amd64)."),
    click.option("--quiet", "-q", is_flag=True, help="Show no progress of a pull."),
    click.option("--cidfile", metavar="FILE", help="Write the container's id to this file."),
    _many("--attach", "-a", metavar="STREAM", help="Attach stdin, stdout or stderr alone."),
    click.option("--name", help="Name of the container."),
    click.option("--interactive", "-i", is_flag=True, help="Keep standard input open."),
    click.option("--tty", "-t", is_flag=True, help="Give the container a terminal."),
)


def container_flags(command: Command) -> Command:
    """Give a command all flags above, in this order in its help."""
    return _given(command, FLAGS)


def limit_flags(command: Command) -> Command:
    """Give a command the flags of limits alone."""
    return _given(command, LIMITS)


def _given(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
