"""The engine itself: versions, events, prunes, and what belongs to a swarm."""

from __future__ import annotations

from tests.clients.tour import Says, like, step

STEPS = (
    step(
        "version",
        like(r"Client:.*\n\nServer:.*\n Engine:\n  Version:  \S+\n  API version:  1\.\d\d \(minimum version 1\.24\)\n.*"),
        why="the engine's name and versions; pybox has no containerd, runc and docker-init",
    ),
    step("version --format '{{.Server.Os}}/{{.Server.Arch}}'", "linux/amd64\n"),
    step(
        "info",
        like(
            r"Client:.*\n\nServer:\n Containers: \d+\n  Running: \d+\n  Paused: \d+\n  Stopped: \d+\n Images: \d+\n"
            r" Server Version: \S+\n Storage Driver: overlay2\n  Backing Filesystem: extfs\n.* Logging Driver: json-file\n"
            r" Cgroup Driver: cgroupfs\n Cgroup Version: 2\n Plugins:\n  Volume: local\n  Network: bridge host .*"
            r" Swarm: inactive\n.* Default Runtime: runc\n.* Security Options:\n  seccomp\n   Profile: builtin\n  cgroupns\n"
            r" Kernel Version: .* OSType: linux\n Architecture: \S+\n CPUs: \d+\n Total Memory: <size>\n.*"
        ),
        like(r"(WARNING: .*\n)*"),
        why="what the two machines are made of; "
        "pybox uses no br_netfilter, of which 20.10 warns; "
        "Docker keeps the container of a build step that failed",
    ),
    step(
        "info --format '{{.OSType}} {{.CgroupVersion}} {{.LoggingDriver}} {{.Swarm.LocalNodeState}} {{.DefaultRuntime}}'",
        "linux 2 json-file inactive runc\n",
    ),
    step("plugin ls", "ID  NAME  DESCRIPTION  ENABLED\n"),
    step(
        "node ls",
        err=(
            'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or '
            '"docker swarm join" to connect this node to swarm and try again.\n'
        ),
        status=1,
    ),
    step(
        "service ls",
        err=(
            'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or '
            '"docker swarm join" to connect this node to swarm and try again.\n'
        ),
        status=1,
    ),
    step(
        "service create --name tour-service tour:base",
        err=(
            'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or '
            '"docker swarm join" to connect this node to swarm and try again.\n'
        ),
        status=1,
    ),
    step("swarm leave", err="Error response from daemon: This node is not part of a swarm\n", status=1),
    step(
        "secret ls",
        err=(
            'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or '
            '"docker swarm join" to connect this node to swarm and try again.\n'
        ),
        status=1,
    ),
    step(
        "nosuch",
        err="docker: 'nosuch' is not a docker command\n",
        status=1,
        new=Says(err="docker: unknown command: docker nosuch\n", status=1),
    ),
    step(
        "system df --format '{{.Type}}: {{.Size}}'",
        "Images: <size>\nContainers: <size>\nLocal Volumes: <size>\nBuild Cache: <size>\n",
    ),
    step(
        "login --username u --password-stdin 127.0.0.1:1",
        err=(
            'Error response from daemon: Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused\n'
        ),
        status=1,
        stdin=b"secret",
    ),
    step("run -d --name tour-events tour:base true", "<id>\n"),
    step("wait tour-events", "0\n"),
    step(
        "events --since 1h --until=-1s --filter container=tour-events --filter event=create --filter "
        "event=die --filter event=start",
        "<time> container create <id> (image=tour:base, name=tour-events)\n"
        "<time> container start <id> (image=tour:base, name=tour-events)\n"
        "<time> container die <id> (execDuration=<seconds>, exitCode=0, image=tour:base, "
        "name=tour-events)\n",
    ),
    step(
        "events --since 1h --until 0s --filter container=tour-events --filter event=die --format "
        "'{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}'",
        "container die tour-events 0\n",
    ),
    step("rm tour-events", "tour-events\n"),
    step(
        "events --since 1h --until=-1s --filter container=tour-events --filter event=destroy --format "
        "'{{json .Actor.Attributes}}'",
        '{"image":"tour:base","name":"tour-events"}\n',
    ),
    step("events --since nonsense", err='failed to parse value as time or duration: "nonsense"\n', status=1),
    step(
        "events --since 1h --until 0s --filter container=tour-events --filter nosuch=x",
        "<time> container create <id> (image=tour:base, name=tour-events)\n"
        "<time> container start <id> (image=tour:base, name=tour-events)\n"
        "<time> container die <id> (execDuration=<seconds>, exitCode=0, image=tour:base, "
        "name=tour-events)\n"
        "<time> container destroy <id> (image=tour:base, name=tour-events)\n",
        pybox=Says(err="Error response from daemon: invalid filter 'nosuch'\n", status=1),
        why="pybox names a filter that it does not know; Docker ignores it",
    ),
    step("create --name tour-pruned --label tour=pruned tour:base", "<id>\n"),
    step("volume create --label tour=pruned tour-pruned", "tour-pruned\n"),
    step("network create --label tour=pruned tour-pruned", "<id>\n"),
    step(
        "system prune -f --filter label=tour=pruned",
        "Deleted Containers:\n<id>\n\nDeleted Networks:\ntour-pruned\n\nTotal reclaimed space: <size>\n",
    ),
    step(
        "system prune -f --volumes --filter until=1h",
        err='ERROR: The "until" filter is not supported with "--volumes"\n',
        status=1,
    ),
)
