"""What is done with containers: their states, logs, programs inside, files in and out."""

from __future__ import annotations

from tests.clients.tour import Says, archive, like, step

STEPS = (
    step("create --name tour-made tour:base sh -c 'echo first; sleep 0.5; echo second >&2; exit 3'", "<id>\n"),
    step(
        "create --name tour-made tour:base",
        err=(
            'Error response from daemon: Conflict. The container name "/tour-made" is already in use by '
            'container "<id>". You have to remove (or rename) that container to be able to reuse that name.\n'
        ),
        status=1,
    ),
    step(
        "ps --all --filter name=tour-made --format '{{.Names}} {{.Image}} {{.Command}} {{.Status}}'",
        'tour-made tour:base "sh -c \'echo first; …" Created\n',
    ),
    step("logs tour-made"),
    step("diff tour-made"),
    step("start --attach tour-made", "first\n", err="second\n", status=3),
    step("start tour-made", "tour-made\n"),
    step("wait tour-made", "3\n"),
    step(
        "start nosuch",
        err=("Error response from daemon: No such container: nosuch\nError: failed to start containers: nosuch\n"),
        status=1,
    ),
    step(
        "ps --all --filter name=tour-made",
        "CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES\n"
        '<id>  tour:base  "sh -c \'echo first; …"  <time> ago  Exited (3) <time> ago  tour-made\n',
    ),
    step(
        "ps --all --filter name=tour-made --filter status=exited --filter exited=3 --format '{{.Names}}: {{.Status}}'",
        "tour-made: Exited (3) <time> ago\n",
    ),
    step("ps --all --filter name=tour-made --filter exited=4 --quiet"),
    step("ps --filter status=nosuch", err="Error response from daemon: invalid filter 'status=nosuch'\n", status=1),
    step("ps --filter nosuch=x", err="Error response from daemon: invalid filter 'nosuch'\n", status=1),
    step("ps --all --filter ancestor=tour:base --filter name=tour --format '{{.Names}}'", "tour-made\n"),
    step("ps --all --size --filter name=tour-made --format '{{.Names}} {{.Size}}'", "tour-made <size> (virtual <size>)\n"),
    step("logs tour-made", "first\nfirst\n", err=("second\nsecond\n")),
    step("logs --tail 1 tour-made", err="second\n"),
    step("logs --timestamps tour-made", "<time> first\n<time> first\n", err=("<time> second\n<time> second\n")),
    step("logs --since 1h --until 2099-01-01 --tail 2 tour-made", "first\n", err="second\n"),
    step("logs --since 2030-01-01 tour-made"),
    step("logs --tail nosuch tour-made", "first\nfirst\n", err=("second\nsecond\n")),
    step(
        "logs nosuch",
        err="Error response from daemon: No such container: nosuch\n",
        status=1,
        old=Says(err="Error: No such container: nosuch\n", status=1),
    ),
    step("attach tour-made", err="You cannot attach to a stopped container, start it first\n", status=1),
    step("exec tour-made true", err="Error response from daemon: container <id> is not running\n", status=1),
    step("top tour-made", err="Error response from daemon: container <id> is not running\n", status=1),
    step("pause tour-made", err="Error response from daemon: container <id> is not running\n", status=1),
    step(
        "kill tour-made",
        err="Error response from daemon: cannot kill container: tour-made: container <id> is not running\n",
        status=1,
    ),
    step("stop tour-made", "tour-made\n"),
    step("port tour-made"),
    step("stats --no-stream nosuch", err="Error response from daemon: No such container: nosuch\n", status=1),
    step(
        'run --detach --name tour-live --env A=b --workdir /usr tour:base sh -c \'trap "exit 7" TERM; '
        'trap "echo usr1" USR1; echo up; sleep 1000 & while :; do wait; done\'',
        "<id>\n",
    ),
    step(
        "ps --filter name=tour-live",
        "CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES\n"
        '<id>  tour:base  "sh -c \'trap \\"exit 7…"  <time> ago  Up <time>  tour-live\n',
    ),
    step(
        "ps --filter name=tour-live --format 'table {{.Names}}\\t{{.Ports}}\\t{{.Networks}}\\t{{.State}}'",
        "NAMES  PORTS  NETWORKS  STATE\ntour-live  bridge  running\n",
    ),
    step("ps --quiet --no-trunc --filter name=tour-live", "<id>\n"),
    step("exec tour-live sh -c 'exit 9'", status=9),
    step("exec tour-live sh -c 'echo out; echo err >&2'", "out\n", err="err\n"),
    step("exec --interactive tour-live cat", "piped", stdin=b"piped"),
    step("exec --env C=d tour-live sh -c 'echo $A$C'", "bd\n"),
    step("exec --workdir /tmp tour-live pwd", "/tmp\n"),
    step(
        "exec --workdir /nosuch tour-live pwd",
        "OCI runtime exec failed: exec failed: unable to start container process: chdir to cwd "
        '("/nosuch") set in config.json failed: no such file or directory: unknown\n',
        status=126,
        pybox=Says(
            "OCI runtime exec failed: exec failed: unable to start container process: chdir to cwd "
            '("/nosuch") set in config.json failed: openat2: no such file or directory (/nosuch): unknown\n',
            status=127,
        ),
        why="Docker 28 has this status, too; pybox names the call that failed",
    ),
    step("exec --user daemon tour-live id -un", "daemon\n"),
    step(
        "exec --user nosuch tour-live true", "unable to find user nosuch: no matching entries in passwd file\n", status=126
    ),
    step("exec --detach tour-live touch /tmp/detached"),
    step(
        "exec tour-live nosuch",
        'OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": '
        "executable file not found in $PATH: unknown\n",
        status=126,
        pybox=Says(
            'OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": '
            "executable file not found in $PATH: unknown\n",
            status=127,
        ),
        why="the status of Docker 28",
    ),
    step(
        "exec tour-live /etc",
        'OCI runtime exec failed: exec failed: unable to start container process: exec: "/etc": is a '
        "directory: unknown: permission denied\n",
        status=126,
    ),
    step(
        "exec nosuch true",
        err="Error response from daemon: No such container: nosuch\n",
        status=1,
        old=Says(err="Error: No such container: nosuch\n", status=1),
    ),
    step("exec --tty tour-live echo hi", "hi\n"),
    step(
        "top tour-live",
        like(
            r"(UID  PID  PPID  C  STIME  TTY  TIME  CMD\nroot  .*  sh -c trap .*\nroot  .*  sleep 1000\n"
            r"|PID  USER  COMMAND\n.*)"
        ),
        why="the reference has busybox's ps",
    ),
    step(
        "top tour-live -o pid,args",
        "PID  COMMAND\n"
        '<pid>  sh -c trap "exit 7" TERM; trap "echo usr1" USR1; echo up; sleep 1000 & while :; do '
        "wait; done\n"
        "<pid>  sleep 1000\n",
    ),
    step("top tour-live -o args", err="Error response from daemon: Couldn't find PID field in ps output\n", status=1),
    step("top nosuch", err="Error response from daemon: No such container: nosuch\n", status=1),
    step(
        "stats --no-stream tour-live",
        "CONTAINER ID  NAME  CPU %  MEM USAGE / LIMIT  MEM %  NET I/O  BLOCK I/O  PIDS\n"
        "<id>  tour-live  <share>  <size> / <size>  <share>  <size> / <size>  <size> / <size>  2\n",
    ),
    step("cp words tour-live:/tmp/copied"),
    step("exec tour-live cat /tmp/copied", "WORD=written\n"),
    step("cp tour-live:/tmp/copied back"),
    step("cp folder tour-live:/tmp/folder"),
    step("exec tour-live ls /tmp", "copied\ndetached\nfolder\n"),
    step("cp - tour-live:/tmp", stdin=archive()),
    step("exec tour-live cat /tmp/inside", "from an archive\n"),
    step("cp tour-live:/tmp/copied -", "<archive>"),
    step(
        "cp tour-live:/nosuch .",
        err="Error response from daemon: Could not find the file /nosuch in container tour-live\n",
        status=1,
        old=Says(err="Error: No such container:path: tour-live:/nosuch\n", status=1),
    ),
    step(
        "cp words tour-live:/nosuch/there",
        err="Error response from daemon: Could not find the file /nosuch in container tour-live\n",
        status=1,
        old=Says(err="Error: No such container:path: tour-live:/nosuch\n", status=1),
    ),
    step(
        "cp words tour-live:/nosuch/",
        err=like(r'(time="<time>" level=error msg="Can.t (add|close) [^\n]*\n)*no such directory\n'),
        status=1,
        why="the client may be in the middle of its archive when it is refused",
    ),
    step("cp nosuch tour-live:/tmp", err="lstat <folder>/nosuch: no such file or directory\n", status=1),
    step(
        "cp nosuch:/x .",
        err="Error response from daemon: No such container: nosuch\n",
        status=1,
        old=Says(err="Error: No such container:path: nosuch:/x\n", status=1),
    ),
    step("cp words back", err="must specify at least one container source\n", status=1),
    step("diff tour-live", like(r"C /tmp\n(A /tmp/\S+\n){5}"), why="Docker's order is none; pybox sorts"),
    step(
        "attach --no-stdin nosuch",
        err="Error response from daemon: No such container: nosuch\n",
        status=1,
        old=Says(err="Error: No such container: nosuch\n", status=1),
    ),
    step("kill --signal USR1 tour-live", "tour-live\n"),
    step(
        "kill --signal NOSUCH tour-live",
        err="Error response from daemon: cannot kill container: tour-live: invalid signal: NOSUCH\n",
        status=1,
    ),
    step(
        "kill nosuch", err="Error response from daemon: cannot kill container: nosuch: No such container: nosuch\n", status=1
    ),
    step("logs tour-live", "up\nusr1\n"),
    step("pause tour-live", "tour-live\n"),
    step("pause tour-live", err="Error response from daemon: Container <id> is already paused\n", status=1),
    step("ps --filter name=tour-live --format '{{.Status}} {{.State}}'", "Up <time> (Paused) paused\n"),
    step(
        "exec tour-live true",
        err="Error response from daemon: Container tour-live is paused, unpause the container before exec\n",
        status=1,
    ),
    step("attach --no-stdin tour-live", err="You cannot attach to a paused container, unpause it first\n", status=1),
    step("unpause tour-live", "tour-live\n"),
    step("unpause tour-live", err="Error response from daemon: Container <id> is not paused\n", status=1),
    step(
        "update --memory 64m --memory-swap 128m tour-live",
        like(r"tour-live\n(Your kernel does not support swap limit .*\n)?"),
        why="the reference counts no swap",
    ),
    step("exec tour-live cat /sys/fs/cgroup/memory.max", "67108864\n"),
    step("update --restart on-failure:2 tour-live", "tour-live\n"),
    step(
        "inspect --format '{{json .HostConfig.RestartPolicy}} {{.HostConfig.Memory}}' tour-live",
        '{"Name":"on-failure","MaximumRetryCount":2} 67108864\n',
    ),
    step("update nosuch", err="you must provide one or more flags when using this command\n", status=1),
    step("rename tour-live tour-renamed"),
    step(
        "rename tour-renamed tour-made",
        err=(
            "Error response from daemon: Error when allocating new name: Conflict. The container name "
            '"/tour-made" is already in use by container "<id>". You have to remove (or rename) that '
            "container to be able to reuse that name.\n"
            "Error: failed to rename container named tour-renamed\n"
        ),
        status=1,
    ),
    step(
        "rename tour-renamed tour-renamed",
        err=(
            "Error response from daemon: Renaming a container with the same name as its current name\n"
            "Error: failed to rename container named tour-renamed\n"
        ),
        status=1,
    ),
    step(
        "rename nosuch x",
        err=("Error response from daemon: No such container: nosuch\nError: failed to rename container named nosuch\n"),
        status=1,
    ),
    step(
        "rm tour-renamed",
        err=(
            'Error response from daemon: cannot remove container "/tour-renamed": container is running: '
            "stop the container before removing or force remove\n"
        ),
        status=1,
    ),
    step(
        "rm nosuch",
        err="Error response from daemon: No such container: nosuch\n",
        status=1,
        old=Says(err="Error: No such container: nosuch\n", status=1),
    ),
    step("restart -t 5 tour-renamed", "tour-renamed\n"),
    step("inspect --format '{{.State.Running}} {{.RestartCount}}' tour-renamed", "true 0\n"),
    step("stop -t 5 tour-renamed", "tour-renamed\n"),
    step("wait tour-renamed", "7\n"),
    step("wait nosuch", err="Error response from daemon: No such container: nosuch\n", status=1),
    step("ps --all --filter name=tour-renamed --format '{{.Status}}'", "Exited (7) <time> ago\n"),
    step("unpause tour-renamed", err="Error response from daemon: Container <id> is not paused\n", status=1),
    step("exec tour-renamed true", err="Error response from daemon: container <id> is not running\n", status=1),
    step("start tour-renamed", "tour-renamed\n"),
    step("kill tour-renamed", "tour-renamed\n"),
    step(
        "inspect --format '{{.State.ExitCode}} {{.State.OOMKilled}} {{.Config.Image}} {{.Path}} {{len "
        ".Args}} {{.Platform}} {{.Name}}' tour-renamed",
        "137 false tour:base sh 2 linux /tour-renamed\n",
    ),
    step("inspect nosuch", "[]\n", err="Error: No such object: nosuch\n", status=1),
    step(
        "inspect --type container nosuch",
        "[]\n",
        err="Error response from daemon: No such container: nosuch\n",
        status=1,
        old=Says("[]\n", err="Error: No such container: nosuch\n", status=1),
    ),
    step(
        "container inspect nosuch",
        "[]\n",
        err="Error response from daemon: No such container: nosuch\n",
        status=1,
        old=Says("[]\n", err="Error: No such container: nosuch\n", status=1),
    ),
    step(
        "rm --force nosuch",
        err="Error response from daemon: No such container: nosuch\n",
        old=Says(err="Error: No such container: nosuch\n"),
    ),
    step("rm --volumes tour-renamed", "tour-renamed\n"),
    step("run --name tour-pruned --label tour=pruned tour:base true"),
    step(
        "container prune --force --filter label=tour=pruned", "Deleted Containers:\n<id>\n\nTotal reclaimed space: <size>\n"
    ),
    step("export nosuch", err="Error response from daemon: No such container: nosuch\n", status=1),
    step("commit nosuch x", err="Error response from daemon: No such container: nosuch\n", status=1),
    step("run --detach --name tour-brief tour:base sh -c 'sleep 3; echo done; exit 5'", "<id>\n"),
    step("attach --no-stdin tour-brief", "done\n", status=5),
    step("attach tour-brief", err="You cannot attach to a stopped container, start it first\n", status=1),
    step("rm tour-brief tour-made", "tour-brief\ntour-made\n"),
)
