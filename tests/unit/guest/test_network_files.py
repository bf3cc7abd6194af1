from __future__ import annotations

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.network import files
from pyboxd.network.files import Resolver

GUEST = Resolver(("10.0.2.3",), ("corp.example",), ("edns0",))
FIXED = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


def test_hosts_names_the_container_and_the_users_system() -> None:
    assert files.hosts("4c01db0b339c", "", ["172.17.0.2"]) == (
        FIXED + "10.0.2.2\thost.docker.internal gateway.docker.internal\n172.17.0.2\t4c01db0b339c\n"
    )


def test_hosts_has_a_line_for_each_network_with_the_full_name_first() -> None:
    text = files.hosts("web", "example.com", ["172.17.0.2", "172.18.0.2"])
    assert text.endswith("172.17.0.2\tweb.example.com web\n172.18.0.2\tweb.example.com web\n")
    assert files.hosts("web.example.com", "", ["172.17.0.2"]).endswith("172.17.0.2\tweb.example.com web\n")


def test_what_the_user_adds_comes_first_and_wins() -> None:
    extra = [("db", "192.0.2.1"), ("host.docker.internal", "192.0.2.2")]
    assert files.hosts("c", "", [], extra) == (
        FIXED + "192.0.2.1\tdb\n192.0.2.2\thost.docker.internal\n10.0.2.2\tgateway.docker.internal\n"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("db:192.0.2.1", ("db", "192.0.2.1")),
        ("host:host-gateway", ("host", "10.0.2.2")),
        ("six:2001:db8::1", ("six", "2001:db8::1")),
        ("six:[2001:db8::1]", ("six", "2001:db8::1")),
    ],
)
def test_an_extra_host_is_read(text: str, found: tuple[str, str]) -> None:
    assert files.parse_extra_host(text) == found


@pytest.mark.parametrize("text", ["", "db", ":192.0.2.1", "db:", "db:somewhere", "db:1.2.3.4.5", "db:1.2.3.4\nevil"])
def test_a_wrong_extra_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="add-host"):
        files.parse_extra_host(text)


def test_resolv_conf_is_the_guests_unless_asked_for() -> None:
    assert files.resolv_conf(GUEST, Resolver()) == "nameserver 10.0.2.3\nsearch corp.example\noptions edns0\n"
    asked = Resolver(("9.9.9.9", "1.1.1.1"), ("a.example", "b.example"), ("ndots:2", "rotate"))
    assert files.resolv_conf(GUEST, asked) == (
        "nameserver 9.9.9.9\nnameserver 1.1.1.1\nsearch a.example b.example\noptions ndots:2 rotate\n"
    )
    assert files.resolv_conf(GUEST, Resolver(search=(".",))) == "nameserver 10.0.2.3\noptions edns0\n"


def test_the_embedded_server_takes_the_place_of_all_others() -> None:
    asked = Resolver(("9.9.9.9",))
    assert files.resolv_conf(GUEST, asked, embedded=True) == (
        "nameserver 127.0.0.11\nsearch corp.example\noptions edns0 ndots:0\n"
    )
    assert "ndots:0" not in files.resolv_conf(GUEST, Resolver(options=("ndots:3",)), embedded=True)


def test_a_resolv_conf_is_read() -> None:
    text = (
        "# made by hand\nnameserver 10.0.2.3 # first\nnameserver 127.0.0.53\n; no\nsearch a b\noptions edns0\nnameserver\n"
    )
    assert files.parse_resolv_conf(text) == Resolver(("10.0.2.3",), ("a", "b"), ("edns0",))
    assert files.parse_resolv_conf("nameserver 127.0.0.53\n").nameservers == ("10.0.2.3",)
