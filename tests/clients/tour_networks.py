"""Networks and volumes."""

from __future__ import annotations

from tests.clients.tour import Says, like, step

STEPS = (
    step("network create tour-net", "<id>\n"),
    step("network create tour-net", err="Error response from daemon: network with name tour-net already exists\n", status=1),
    step(
        "network create --driver nosuch tour-other",
        err='Error response from daemon: plugin "nosuch" not found\n',
        status=1,
        pybox=Says(
            err=(
                'Error response from daemon: could not find plugin nosuch in v1 plugin registry: plugin "nosuch" not found\n'
            ),
            status=1,
        ),
        why="the words of Docker 28",
    ),
    step("network create --subnet 10.98.0.0/24 --gateway 10.98.0.1 --label tour=subnet --internal tour-subnet", "<id>\n"),
    step(
        "network create --subnet nonsense tour-other",
        err=("Error response from daemon: invalid network config:\ninvalid subnet nonsense: invalid CIDR block notation\n"),
        status=1,
        pybox=Says(err="Error response from daemon: invalid subnet nonsense: Expected 4 octets in 'nonsense'\n", status=1),
        why="pybox says what is wrong with it",
    ),
    step(
        "network create --subnet 10.98.0.0/25 tour-other",
        err="Error response from daemon: Pool overlaps with other one on this address space\n",
        status=1,
        pybox=Says(
            err=("Error response from daemon: invalid pool request: Pool overlaps with other one on this address space\n"),
            status=1,
        ),
        why="the words of Docker 28",
    ),
    step(
        "network ls --filter name=tour",
        "NETWORK ID  NAME  DRIVER  SCOPE\n<id>  tour-net  bridge  local\n<id>  tour-subnet  bridge  local\n",
    ),
    step("network ls --filter driver=host", "NETWORK ID  NAME  DRIVER  SCOPE\n<id>  host  host  local\n"),
    step("network ls --filter nosuch=x", err="Error response from daemon: invalid filter 'nosuch'\n", status=1),
    step(
        "network inspect --format '{{json .IPAM.Config}} {{.Internal}} {{json .Labels}} {{.Attachable}} "
        "{{.Ingress}}' tour-subnet",
        '[{"Subnet":"10.98.0.0/24","Gateway":"10.98.0.1"}] true {"tour":"subnet"} false false\n',
    ),
    step(
        "network inspect --format '{{.Name}} {{.Driver}} {{.Scope}} {{.EnableIPv6}} {{json .Options}}' tour-net",
        "tour-net bridge local false {}\n",
    ),
    step(
        "network inspect nosuch",
        "[]\n",
        err="Error response from daemon: network nosuch not found\n",
        status=1,
        old=Says("[]\n", err="Error: No such network: nosuch\n", status=1),
    ),
    step("run --detach --name tour-first --network tour-net --network-alias other tour:base sleep 1000", "<id>\n"),
    step("run --rm --network tour-net tour:base getent hosts tour-first other", "<address>  tour-first\n<address>  other\n"),
    step("run --rm --network tour-net tour:base getent hosts nosuch", status=2),
    step("run --detach --name tour-fixed --network tour-subnet --ip 10.98.0.9 tour:base sleep 1000", "<id>\n"),
    step(
        "run --rm --network tour-subnet --ip 10.98.0.9 tour:base true",
        err="docker: Error response from daemon: Address already in use\n",
        status=125,
    ),
    step(
        "run --rm --ip 10.99.0.9 tour:base true",
        err=like(
            r"docker: Error response from daemon: invalid config for network bridge: invalid endpoint settings:\n"
            r"\* user specified IP address is supported on user defined networks only\n"
            r"\* user specified IP address is supported only when connecting to networks with user configured subnets\.?\n"
        ),
        status=125,
        old=Says(),
        pybox=Says(
            err="docker: Error response from daemon: no configured subnet contains IP address 10.99.0.9\n", status=125
        ),
        why="refused at the start, not before",
    ),
    step(
        "inspect --format '{{range $name, $it := .NetworkSettings.Networks}}{{$name}} "
        "{{$it.IPAddress}}/{{$it.IPPrefixLen}} {{$it.Gateway}};{{end}}' tour-fixed",
        "tour-subnet 10.98.0.9/24 ;\n",
    ),
    step("network connect --alias friend tour-subnet tour-first"),
    step(
        "network connect tour-subnet tour-first",
        err=("Error response from daemon: endpoint with name tour-first already exists in network tour-subnet\n"),
        status=1,
    ),
    step("network connect nosuch tour-first", err="Error response from daemon: network nosuch not found\n", status=1),
    step("network connect tour-subnet nosuch", err="Error response from daemon: No such container: nosuch\n", status=1),
    step("exec tour-fixed getent hosts friend", "10.98.0.2  friend\n"),
    step("exec tour-first ls /sys/class/net", "eth0\neth1\nlo\n"),
    step("network disconnect tour-subnet tour-first"),
    step(
        "network disconnect tour-subnet tour-first",
        err="Error response from daemon: container <id> is not connected to network tour-subnet\n",
        status=1,
    ),
    step("network disconnect nosuch tour-first", err="Error response from daemon: network nosuch not found\n", status=1),
    step(
        "network rm tour-net",
        err=like(
            "Error response from daemon: error while removing network: network tour-net id <id> "
            r"has active endpoints\n(exit status 1\n)?"
        ),
        status=1,
        pybox=Says(
            err=like(
                "Error response from daemon: error while removing network: network tour-net has active endpoints "
                r'\(name:"tour-first" id:"<id>"\)\n(exit status 1\n)?'
            ),
            status=1,
        ),
        why="the words of Docker 28",
    ),
    step(
        "network rm bridge",
        err="Error response from daemon: bridge is a pre-defined network and cannot be removed\n",
        status=1,
        new=Says(
            err=("Error response from daemon: bridge is a pre-defined network and cannot be removed\nexit status 1\n"),
            status=1,
        ),
    ),
    step(
        "network rm nosuch",
        err="Error response from daemon: network nosuch not found\n",
        status=1,
        old=Says(err="Error: No such network: nosuch\n", status=1),
        new=Says(err=("Error response from daemon: network nosuch not found\nexit status 1\n"), status=1),
    ),
    step("ps --all --filter network=tour-net --format '{{.Names}} {{.Networks}}'", "tour-first tour-net\n"),
    step("rm --force tour-first tour-fixed", "tour-first\ntour-fixed\n"),
    step("network rm tour-net", "tour-net\n"),
    step("network prune --force --filter label=tour=subnet", "Deleted Networks:\ntour-subnet\n\n"),
    step("network ls --filter name=tour --quiet"),
    step("volume create tour-volume", "tour-volume\n"),
    step("volume create tour-volume", "tour-volume\n"),
    step(
        "volume create --driver nosuch tour-other",
        err=(
            "Error response from daemon: create tour-other: error looking up volume plugin nosuch: plugin "
            '"nosuch" not found\n'
        ),
        status=1,
    ),
    step(
        "volume create Bad/name",
        err=(
            'Error response from daemon: create Bad/name: "Bad/name" includes invalid characters for a '
            'local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a '
            "host directory, use absolute path\n"
        ),
        status=1,
    ),
    step("volume create --label tour=labelled --opt type=tmpfs --opt device=tmpfs tour-labelled", "tour-labelled\n"),
    step("volume ls --filter name=tour", "DRIVER  VOLUME NAME\nlocal  tour-labelled\nlocal  tour-volume\n"),
    step("volume ls --filter label=tour=labelled --quiet", "tour-labelled\n"),
    step("volume ls --filter nosuch=x", err="Error response from daemon: invalid filter 'nosuch'\n", status=1),
    step(
        "volume ls --filter name=tour --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}}'",
        "tour-labelled local local tour=labelled\ntour-volume local local\n",
    ),
    step(
        "volume inspect --format '{{.Name}} {{.Driver}} {{.Scope}} {{json .Labels}} {{json .Options}}' tour-labelled",
        'tour-labelled local local {"tour":"labelled"} {"device":"tmpfs","type":"tmpfs"}\n',
    ),
    step(
        "volume inspect --format '{{.Mountpoint}}' tour-volume",
        "/var/lib/docker/volumes/tour-volume/_data\n",
        pybox=Says("/var/lib/pyboxd/volumes/tour-volume/_data\n"),
        why="the data disk is laid out otherwise",
    ),
    step(
        "volume inspect nosuch",
        "[]\n",
        err="Error response from daemon: get nosuch: no such volume\n",
        status=1,
        old=Says("[]\n", err="Error: No such volume: nosuch\n", status=1),
    ),
    step("run --name tour-user --volume tour-volume:/data tour:base touch /data/file"),
    step(
        "volume rm tour-volume", err="Error response from daemon: remove tour-volume: volume is in use - [<id>]\n", status=1
    ),
    step("volume ls --filter dangling=true --filter name=tour --quiet", "tour-labelled\n"),
    step(
        "inspect --format '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}' tour-user",
        "volume tour-volume /data true\n",
    ),
    step("rm --volumes tour-user", "tour-user\n"),
    step("volume rm tour-volume", "tour-volume\n"),
    step(
        "volume rm nosuch",
        err="Error response from daemon: get nosuch: no such volume\n",
        status=1,
        old=Says(err="Error: No such volume: nosuch\n", status=1),
    ),
    step("volume rm --force nosuch", "nosuch\n"),
    step("volume prune --force --filter label=tour=labelled", "Total reclaimed space: <size>\n"),
    step(
        "volume prune --all --force --filter label=tour=labelled",
        "Total reclaimed space: <size>\n",
        old=Says(err=("unknown flag: --all\nSee 'docker volume prune --help'.\n"), status=125),
    ),
)
