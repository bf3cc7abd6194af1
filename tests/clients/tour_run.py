"""`docker run`: statuses, streams, and its flags."""

from __future__ import annotations

from tests.clients.tour import Says, like, step

STEPS = (
    step("run --rm tour:base echo hi", "hi\n"),
    step("run --rm tour:base sh -c 'echo out; echo err >&2; exit 4'", "out\n", err="err\n", status=4),
    step(
        "run --rm tour:base nosuch",
        err=(
            "docker: Error response from daemon: failed to create task for container: failed to create shim "
            "task: OCI runtime create failed: runc create failed: unable to start container process: exec: "
            '"nosuch": executable file not found in $PATH: unknown\n'
        ),
        status=127,
        pybox=Says(
            err=(
                "docker: Error response from daemon: failed to create task for container: failed to create shim "
                "task: OCI runtime create failed: runc create failed: unable to start container process: error "
                'during container init: exec: "nosuch": executable file not found in $PATH: unknown\n'
            ),
            status=127,
        ),
        why="the words of runc 1.2 and later",
    ),
    step(
        "run --rm tour:base /etc",
        err=(
            "docker: Error response from daemon: failed to create task for container: failed to create shim "
            "task: OCI runtime create failed: runc create failed: unable to start container process: exec: "
            '"/etc": is a directory: unknown: permission denied\n'
        ),
        status=126,
        pybox=Says(
            err=(
                "docker: Error response from daemon: failed to create task for container: failed to create shim "
                "task: OCI runtime create failed: runc create failed: unable to start container process: error "
                'during container init: exec: "/etc": is a directory: unknown: permission denied\n'
            ),
            status=126,
        ),
        why="the words of runc 1.2 and later",
    ),
    step(
        "run --rm tour:base ./nosuch",
        err=(
            "docker: Error response from daemon: failed to create task for container: failed to create shim "
            "task: OCI runtime create failed: runc create failed: unable to start container process: exec: "
            '"./nosuch": stat ./nosuch: no such file or directory: unknown\n'
        ),
        status=127,
        pybox=Says(
            err=(
                "docker: Error response from daemon: failed to create task for container: failed to create shim "
                "task: OCI runtime create failed: runc create failed: unable to start container process: error "
                'during container init: exec: "./nosuch": stat ./nosuch: no such file or directory: unknown\n'
            ),
            status=127,
        ),
        why="the words of runc 1.2 and later",
    ),
    step(
        "run --rm --memory 1k tour:base true",
        err="docker: Error response from daemon: Minimum memory limit allowed is <size>\n",
        status=125,
    ),
    step("run --rm --nosuch tour:base true", err="unknown flag: --nosuch\n", status=125),
    step(
        "run --rm 127.0.0.1:1/nosuch:1 true",
        err=(
            "Unable to find image '127.0.0.1:1/nosuch:1' locally\n"
            'docker: Error response from daemon: Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: '
            "connect: connection refused\n"
        ),
        status=125,
    ),
    step(
        "run --rm Nosuch true",
        err="docker: invalid reference format: repository name (library/Nosuch) must be lowercase\n",
        status=125,
        old=Says(err="docker: invalid reference format: repository name must be lowercase\n", status=125),
    ),
    step(
        "run --rm",
        err=(
            '"docker run" requires at least 1 argument.\n'
            "\n"
            "Usage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n"
            "\n"
            "Create and run a new container from an image\n"
        ),
        status=1,
        old=Says(
            err=(
                '"docker run" requires at least 1 argument.\n'
                "\n"
                "Usage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n"
                "\n"
                "Run a command in a new container\n"
            ),
            status=1,
        ),
        new=Says(err="docker: 'docker run' requires at least 1 argument\n", status=1),
    ),
    step("run --rm --interactive tour:base cat", "piped", stdin=b"piped"),
    step("run --rm --interactive --tty tour:base cat", err="the input device is not a TTY\n", status=1),
    step("run --rm --tty tour:base echo hi", "hi\n"),
    step("run --rm --env A=b --env-file words tour:base sh -c 'echo $A $WORD'", "b written\n"),
    step("run --rm --env-file nosuch tour:base true", err="docker: open nosuch: no such file or directory\n", status=125),
    step("run --rm --workdir /usr/share tour:base pwd", "/usr/share\n"),
    step(
        "run --rm --workdir relative tour:base pwd",
        err=(
            "docker: Error response from daemon: the working directory 'relative' is invalid, it needs to "
            "be an absolute path\n"
        ),
        status=125,
    ),
    step("run --rm --user 1000:1001 tour:base id", "uid=1000 gid=1001 groups=1001\n"),
    step(
        "run --rm --user nosuch tour:base true",
        err=("docker: Error response from daemon: unable to find user nosuch: no matching entries in passwd file\n"),
        status=125,
    ),
    step("run --rm --user daemon --group-add 44 tour:base id", "uid=1(daemon) gid=1(daemon) groups=1(daemon),44(video)\n"),
    step("run --rm --entrypoint /bin/echo tour:base entered", "entered\n"),
    step("run --rm --hostname tourist tour:base hostname", "tourist\n"),
    step(
        "run --rm --add-host friend:192.0.2.1 tour:base cat /etc/hosts",
        "127.0.0.1  localhost\n"
        "::1  localhost ip6-localhost ip6-loopback\n"
        "fe00::0  ip6-localnet\n"
        "ff00::0  ip6-mcastprefix\n"
        "ff02::1  ip6-allnodes\n"
        "ff02::2  ip6-allrouters\n"
        "192.0.2.1  friend\n"
        "<address>  <id>\n",
        pybox=Says(
            "127.0.0.1  localhost\n"
            "::1  localhost ip6-localhost ip6-loopback\n"
            "fe00::  ip6-localnet\n"
            "ff00::  ip6-mcastprefix\n"
            "ff02::1  ip6-allnodes\n"
            "ff02::2  ip6-allrouters\n"
            "192.0.2.1  friend\n"
            "10.0.2.2  host.docker.internal gateway.docker.internal\n"
            "<address>  <id>\n"
        ),
        why="Docker 28 writes the prefixes so; the host has a name, as in Docker Desktop",
    ),
    step(
        "run --rm --add-host friend tour:base true",
        err='invalid argument "friend" for "--add-host" flag: bad format for add-host: "friend"\n',
        status=125,
    ),
    step(
        "run --rm --dns 192.0.2.53 --dns-search example.org tour:base cat /etc/resolv.conf",
        "# Generated by Docker Engine.\n"
        "# This file can be edited; Docker Engine will not make further changes once it\n"
        "# has been modified.\n"
        "\n"
        "nameserver 192.0.2.53\n"
        "search example.org\n"
        "\n"
        "# Based on host file: '/etc/resolv.conf' (legacy)\n"
        "# Overrides: [nameservers search]\n",
        pybox=Says("nameserver 192.0.2.53\nsearch example.org\n"),
        why="no comments in resolv.conf",
    ),
    step("run --rm --network none tour:base ls /sys/class/net", "lo\n"),
    step(
        "run --rm --network nosuch tour:base true",
        err="docker: Error response from daemon: network nosuch not found\n",
        status=125,
    ),
    step("run --rm --volume tour-volume:/data tour:base sh -c 'echo kept >/data/file'"),
    step(
        "run --rm --volume tour-volume:/data:ro tour:base touch /data/other",
        err="touch: cannot touch '/data/other': Read-only file system\n",
        status=1,
    ),
    step("run --rm --volume FOLDER/bound:/data tour:base sh -c 'echo bound >/data/file; cat /data/file'", "bound\n"),
    step(
        "run --rm --volume relative/path:/data tour:base true",
        err=(
            'docker: Error response from daemon: create relative/path: "relative/path" includes invalid '
            'characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you '
            "intended to pass a host directory, use absolute path\n"
        ),
        status=125,
    ),
    step(
        "run --rm --volume tour-volume:data tour:base true",
        err=(
            "docker: Error response from daemon: invalid volume specification: 'tour-volume:data': invalid "
            "mount config for type \"volume\": invalid mount path: 'data' mount path must be absolute\n"
        ),
        status=125,
    ),
    step(
        "run --rm --mount type=bind,source=FOLDER/nosuch,target=/data tour:base true",
        err=(
            'docker: Error response from daemon: invalid mount config for type "bind": bind source path '
            "does not exist: <folder>/nosuch\n"
        ),
        status=125,
    ),
    step("run --rm --mount type=volume,source=tour-volume,target=/data,readonly tour:base cat /data/file", "kept\n"),
    step(
        "run --rm --mount type=nosuch,target=/data tour:base true",
        err='docker: Error response from daemon: invalid mount config for type "nosuch": mount type unknown\n',
        status=125,
    ),
    step(
        "run --rm --tmpfs /scratch:size=1m tour:base sh -c 'df --output=fstype,size /scratch'",
        "Type  1K-blocks\ntmpfs  1024\n",
    ),
    step("run --rm --read-only tour:base touch /file", err="touch: cannot touch '/file': Read-only file system\n", status=1),
    step(
        "run --rm --init tour:base cat /proc/1/comm",
        "docker-init\n",
        pybox=Says("monitor\n"),
        why="the monitor of the container is its init",
    ),
    step(
        "run --rm --memory 64m tour:base cat /sys/fs/cgroup/memory.max",
        "67108864\n",
        like(r"(WARNING: Your kernel does not support swap limit .*\n)?"),
        why="the reference counts no swap",
    ),
    step(
        "run --rm --cpus 0.5 --pids-limit 20 tour:base cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max",
        "50000 100000\n20\n",
    ),
    step(
        "run --rm --cpus 100 tour:base true",
        err=("docker: Error response from daemon: Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available\n"),
        status=125,
    ),
    step("run --rm --shm-size 8m tour:base df --output=size /dev/shm", "1K-blocks\n     8192\n"),
    step("run --rm --ulimit nofile=100:200 tour:base sh -c 'ulimit -n; ulimit -H -n'", "100\n200\n"),
    step(
        "run --rm --sysctl net.ipv4.ip_unprivileged_port_start=80 tour:base cat "
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "80\n",
    ),
    step(
        "run --rm --sysctl kernel.nosuch=1 tour:base true",
        err=('invalid argument "kernel.nosuch=1" for "--sysctl" flag: sysctl \'kernel.nosuch=1\' is not allowed\n'),
        status=125,
        old=Says(
            err=('invalid argument "kernel.nosuch=1" for "--sysctl" flag: sysctl \'kernel.nosuch=1\' is not whitelisted\n'),
            status=125,
        ),
    ),
    step(
        "run --rm tour:base grep Cap /proc/self/status",
        "CapInh:  0000000000000000\n"
        "CapPrm:  00000000a80425fb\n"
        "CapEff:  00000000a80425fb\n"
        "CapBnd:  00000000a80425fb\n"
        "CapAmb:  0000000000000000\n",
    ),
    step("run --rm --cap-drop ALL --cap-add CHOWN tour:base grep CapEff /proc/self/status", "CapEff:  0000000000000001\n"),
    step(
        "run --rm --cap-add NOSUCH tour:base true",
        err='docker: Error response from daemon: invalid CapAdd: unknown capability: "CAP_NOSUCH"\n',
        status=125,
    ),
    step("run --rm --security-opt no-new-privileges tour:base grep NoNewPrivs /proc/self/status", "NoNewPrivs:  1\n"),
    step("run --rm --privileged tour:base grep CapEff /proc/self/status", "CapEff:  000001ffffffffff\n"),
    step(
        "run --rm --device /dev/nosuch tour:base true",
        err=(
            "docker: Error response from daemon: error gathering device information while adding custom "
            'device "/dev/nosuch": no such file or directory\n'
        ),
        status=127,
    ),
    step(
        "run --rm --log-driver nosuch tour:base true",
        err=('docker: Error response from daemon: error looking up logging plugin nosuch: plugin "nosuch" not found\n'),
        status=125,
    ),
    step(
        "run --rm --restart always tour:base true",
        err="docker: Conflicting options: --restart and --rm\n",
        status=125,
        new=Says(err="docker: conflicting options: cannot specify both --restart and --rm\n", status=125),
    ),
    step(
        "run --rm --publish x tour:base true",
        err="docker: Invalid containerPort: x\n",
        status=125,
        new=Says(err="docker: invalid containerPort: x\n", status=125),
    ),
    step(
        "run --detach --name tour-run --publish 127.0.0.1::80 --label tour=run --stop-signal USR1 tour:base sleep 1000",
        "<id>\n",
    ),
    step(
        "run --name tour-run tour:base true",
        err=(
            'docker: Error response from daemon: Conflict. The container name "/tour-run" is already in use '
            'by container "<id>". You have to remove (or rename) that container to be able to reuse that '
            "name\n"
        ),
        status=125,
    ),
    step(
        "run --name ./tour tour:base true",
        err=(
            "docker: Error response from daemon: Invalid container name (./tour), only "
            "[a-zA-Z0-9][a-zA-Z0-9_.-] are allowed\n"
        ),
        status=125,
    ),
    step("port tour-run", "80/tcp -> 127.0.0.1:<port>\n"),
    step("port tour-run 80", "127.0.0.1:<port>\n"),
    step(
        "port tour-run 81",
        err="Error: No public port '81' published for tour-run\n",
        status=1,
        old=Says(err="Error: No public port '81/tcp' published for tour-run\n", status=1),
    ),
    step(
        "inspect --format '{{.Config.StopSignal}} {{json .Config.Labels}} {{json .HostConfig.PortBindings}}' tour-run",
        'USR1 {"tour":"run"} {"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}\n',
    ),
    step("stop -t 1 tour-run", "tour-run\n"),
    step("inspect --format '{{.State.Status}} {{.State.ExitCode}}' tour-run", "exited 137\n"),
    step(
        "run --rm --volumes-from nosuch tour:base true",
        err="docker: Error response from daemon: No such container: nosuch\n",
        status=125,
    ),
    step("run --detach --name tour-healthy --health-cmd true --health-interval 1s tour:base sleep 1000", "<id>\n"),
    step(
        "run --rm --link nosuch tour:base true",
        err=("docker: Error response from daemon: could not get container for nosuch: No such container: nosuch\n"),
        status=125,
    ),
    step("run --rm --pid container:tour-healthy tour:base cat /proc/1/comm", "sleep\n"),
    step("rm --force tour-run tour-healthy", "tour-run\ntour-healthy\n"),
)
