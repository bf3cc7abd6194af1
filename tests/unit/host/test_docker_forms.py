"""Docker's command line and its lists: flags, networks, pools, ports, names of images."""

from __future__ import annotations

from typing import Any

import click
import pytest

from pybox.app import options
from pybox.app.copying import InContainer, _is_content, place
from pybox.app.endpoints import networks
from pybox.app.images import full_reference, split_reference
from pybox.app.pools import pools
from pybox.cli import output
from pybox.cli.events import local_time
from pybox.cli.lazy import plain_flags
from pybox.cli.output import table_lines
from pybox.cli.rows import container_row, image_rows, ports
from pybox.cli.stats import bar
from pybox.errors import UsageProblem


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--rm", is_flag=True)
@click.option("--tty", "-t", is_flag=True)
@click.option("--pause/--no-pause", "-p", default=True)
@click.option("--env", "-e", multiple=True)
@click.argument("rest", nargs=-1)
def program(**_: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--rm=true image", "--rm image"),
        ("--rm=false -t=1 image --rm=false", "-t image --rm=false"),
        ("--pause=false image", "--no-pause image"),
        ("-p=false image", "--no-pause image"),
        ("-p=t image", "-p image"),
        ("-e --rm=false image", "-e --rm=false image"),
        ("-te A=1 --rm=0 image", "-te A=1 image"),
        ("-eA=1 --rm=0 image", "-eA=1 image"),
        ("--env=A=true --rm=F image", "--env=A=true image"),
        ("--rm=maybe image", "--rm=maybe image"),
        ("-- --rm=false", "-- --rm=false"),
    ],
)
def test_flags_with_values(words: str, expected: str) -> None:
    assert plain_flags(program, words.split()) == expected.split()


def flags(*network: str, **more: Any) -> dict[str, Any]:
    lists = ("network_alias", "link", "link_local_ip")
    single = ("mac_address", "ip", "ip6")
    return {"network": network, **dict.fromkeys(lists, ()), **dict.fromkeys(single), **more}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (flags(), ("default", {})),
        (flags("host"), ("host", {})),
        (flags("container:web"), ("container:web", {})),
        (flags("n", network_alias=("a", "b")), ("n", {"n": {"Aliases": ["a", "b"]}})),
        (
            flags("n", ip="10.5.0.2", mac_address="02:00:00:00:00:01"),
            ("n", {"n": {"MacAddress": "02:00:00:00:00:01", "IPAMConfig": {"IPv4Address": "10.5.0.2"}}}),
        ),
        (flags("n", link=("web:w",)), ("n", {"n": {"Links": ["web:w"]}})),
        (flags("bridge", link=("web:w",)), ("bridge", {})),
        (flags("n", "m"), ("n", {"n": {}, "m": {}})),
        (
            flags("name=n,alias=a,alias=b,ip6=fd00::2,driver-opt=k=v,gw-priority=3"),
            (
                "n",
                {
                    "n": {
                        "Aliases": ["a", "b"],
                        "DriverOpts": {"k": "v"},
                        "GwPriority": 3,
                        "IPAMConfig": {"IPv6Address": "fd00::2"},
                    }
                },
            ),
        ),
    ],
)
def test_networks_of_a_container(given: dict[str, Any], expected: tuple[str, dict[str, Any]]) -> None:
    assert networks(given) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (flags("alias=a"), "network name/id is not specified"),
        (flags("name=n,colour=red"), "invalid field key colour"),
        (flags("name=n,gw-priority=x"), "invalid gw-priority"),
        (flags("name=n,ip=10.5.0.2", ip="10.5.0.3"), "conflicting options"),
    ],
)
def test_networks_that_make_no_sense(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        networks(given)


def test_pools() -> None:
    assert pools([], [], [], {}) == []
    assert pools(
        ["10.5.0.0/16", "fd00:5::/64"], ["10.5.0.9", "fd00:5::1"], ["10.5.1.0/24"], {"a": "10.5.1.1", "b": "10.5.1.2"}
    ) == [
        {
            "Subnet": "10.5.0.0/16",
            "IPRange": "10.5.1.0/24",
            "Gateway": "10.5.0.9",
            "AuxiliaryAddresses": {"a": "10.5.1.1", "b": "10.5.1.2"},
        },
        {"Subnet": "fd00:5::/64", "Gateway": "fd00:5::1"},
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([], ["10.5.0.1"], [], {}), "every ip-range or gateway must have a corresponding subnet"),
        ((["10.5.0.0/16", "10.5.1.0/24"], [], [], {}), "multiple overlapping subnet"),
        ((["10.5.0.0/16"], ["10.6.0.1"], [], {}), "no matching subnet for gateway 10.6.0.1"),
        ((["10.5.0.0/16"], [], ["10.0.0.0/8"], {}), "no matching subnet for range 10.0.0.0/8"),
        ((["10.5.0.0/16"], [], [], {"a": "fd00::1"}), "no matching subnet for aux-address fd00::1"),
        ((["10.5.0.0/16"], ["10.5.0.1", "10.5.0.2"], [], {}), "cannot configure multiple gateways"),
        ((["10.5.0.0/33"], [], [], {}), "invalid CIDR address"),
        ((["10.5.0.0/16"], ["x"], [], {}), "invalid IP address"),
    ],
)
def test_pools_that_make_no_sense(given: tuple[Any, ...], words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        pools(*given)


def port(private: int, public: int = 0, address: str = "", kind: str = "tcp") -> dict[str, Any]:
    more = {"PublicPort": public, "IP": address} if public else {}
    return {"PrivatePort": private, "Type": kind, **more}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(82), port(80), port(81)], "80-82/tcp"),
        ([port(80), port(82), port(53, kind="udp")], "80/tcp, 53/udp, 82/tcp"),
        ([port(80, 8080, "127.0.0.1")], "127.0.0.1:8080->80/tcp"),
        ([port(80, 80, "::1"), port(81, 81, "::1")], "[::1]:80-81->80-81/tcp"),
        ([port(80, 80, "0.0.0.0"), port(90, 9090, "0.0.0.0"), port(81)], "0.0.0.0:80->80/tcp, 81/tcp, 0.0.0.0:9090->90/tcp"),
    ],
)
def test_ports_of_a_list(given: list[dict[str, Any]], expected: str) -> None:
    assert sorted(ports(given).split(", ")) == sorted(expected.split(", "))


def test_rows_of_a_container_and_an_image() -> None:
    row = container_row(
        {
            "Id": "a" * 64, "Image": "debian", "Command": "sleep 10000 and much more than that", "Created": 0,
            "Status": "Up", "State": "running", "Names": ["/web"], "Labels": {"b": "2", "a": "1"}, "SizeRw": 1200,
            "SizeRootFs": 112_000_000,
            "Mounts": [{"Name": "v" * 64, "Driver": "local"}, {"Source": "/srv", "Type": "bind"}],
        }
    )  # fmt: skip
    assert (row["ID"], row["Command"]) == ("a" * 12, '"sleep 10000 and muc…"')
    assert (row["Labels"], row["LocalVolumes"], row["Size"]) == ("a=1,b=2", "1", "1.2kB (virtual 112MB)")
    assert row["Mounts"] == "v" * 14 + "…,/srv"
    image = {
        "Id": f"sha256:{'b' * 64}", "RepoTags": ["r:5000/app:1", "r:5000/app:2"], "Created": 0, "Size": 111_917_259,
        "RepoDigests": ["r:5000/app@sha256:1", "other@sha256:2"], "SharedSize": 917_259, "Containers": 2,
    }  # fmt: skip
    rows = image_rows(image)
    assert [(row["Repository"], row["Tag"], row["Digest"]) for row in rows] == [
        ("r:5000/app", "1", "sha256:1"),
        ("r:5000/app", "2", "sha256:1"),
        ("other", "<none>", "sha256:2"),
    ]
    assert (rows[0]["SharedSize"], rows[0]["UniqueSize"], rows[0]["VirtualSize"]) == ("917kB", "111MB", "111.9MB")


def test_tables_have_dockers_widths(capsys: pytest.CaptureFixture[str]) -> None:
    assert table_lines([("A", "B"), ("x", "y")]) == ["A         B", "x         y"]
    columns = {"NAME": "Name"}
    output.listing(columns, [{"Name": "web", "CreatedAt": "now"}], "table {{.Name}}\\t{{.CreatedAt}}\\t{{.ID}}",
                   headings={"CreatedAt": "CREATED AT"})  # fmt: skip
    assert capsys.readouterr().out.splitlines() == ["NAME      CREATED AT   ID", "web       now          <no value>"]
    output.listing(columns, [{"b": 1, "a": [2]}], "json")
    assert capsys.readouterr().out == '{"a":[2],"b":1}\n'
    output.listing(columns, [{"Name": "web"}], "table")
    assert capsys.readouterr().out == "NAME\nweb\n"


@pytest.mark.parametrize(
    ("given", "parts", "full"),
    [
        ("debian", ("debian", ""), "docker.io/library/debian:latest"),
        ("team/app:1", ("team/app", "1"), "docker.io/team/app:1"),
        ("localhost:5000/app", ("localhost:5000/app", ""), "localhost:5000/app:latest"),
        ("r.example/a@sha256:0", ("r.example/a", "sha256:0"), "r.example/a@sha256:0"),
    ],
)
def test_names_of_images(given: str, parts: tuple[str, str], full: str) -> None:
    assert split_reference(given) == parts
    assert full_reference(given) == full


def test_limits_are_those_that_were_given() -> None:
    none = dict.fromkeys([name for name, _, _ in options._LIMITS])
    assert options.limits(none) == {}
    given = {**none, "memory": "256m", "memory_swap": "-1", "cpus": "0.5", "pids_limit": -1, "cpuset_mems": "0"}
    assert options.limits(given) == {
        "Memory": 256 << 20,
        "MemorySwap": -1,
        "NanoCpus": 500_000_000,
        "CpusetMems": "0",
        "PidsLimit": -1,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web:/etc", InContainer("web", "/etc")),
        ("web:", InContainer("web", "")),
        ("/a:b", "/a:b"),
        ("./a:b", "./a:b"),
        ("-", "-"),
        ("plain", "plain"),
    ],
)
def test_sides_of_a_copy(text: str, expected: InContainer | str) -> None:
    assert place(text) == expected


def test_content_of_a_folder() -> None:
    assert all(map(_is_content, (".", "/", "a/.", "/a/b/.")))
    assert not any(map(_is_content, ("a", "a/", "..", "a.", "/a/b")))


def test_bars() -> None:
    assert [bar(percent) for percent in (0, 5, 50, 100, 400)] == [
        " " * 10,
        "▌" + " " * 9,
        "█" * 5 + " " * 5,
        *["█" * 10] * 2,
    ]


def test_local_time() -> None:
    text = local_time(1_795_610_238_047_315_330)
    assert text[19:29] == ".047315330"
    assert text[29:] == "Z" or text[29] in "+-"
