"""Docker's JSON: what comes in becomes values or an error in Go's words, and what goes out has Docker's shape."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest

from pyboxd.api.schema import config as schema
from pyboxd.api.schema import containers, exec, networks, stats
from pyboxd.engine import validate
from pyboxd.engine.figures import Interface, Sample
from pyboxd.engine.model import (
    ContainerConfig,
    EndpointConfig,
    Health,
    HostConfig,
    Limits,
    MountPoint,
    MountRequest,
    NetworkView,
    PortBinding,
    PortBindings,
    Record,
    RestartPolicy,
    State,
    Status,
    ThrottleDevice,
    Ulimit,
)
from pyboxd.errors import Forbidden, InvalidArgument
from pyboxd.frozen import replace
from pyboxd.model import Healthcheck, PublishedPort
from pyboxd.network.model import Endpoint, Network, Pool, PoolRequest
from pyboxd.runtime.stats import BlockIo, Stats

SECOND = 10**9


def create(**body: Any) -> Any:
    return schema.decode_create(body, "name", "linux/amd64")


class TestCreate:
    def test_a_body_of_the_cli(self) -> None:
        request = create(
            Hostname="h",
            Tty=True,
            Env=["A=1"],
            Cmd=["sh", "-c", "x"],
            Image="busybox",
            ExposedPorts={"80/tcp": {}},
            Volumes={"/v": {}},
            Labels={"k": "v"},
            Entrypoint=None,
            StopTimeout=3,
            Healthcheck={"Test": ["CMD", "x"], "Interval": SECOND},
            HostConfig={
                "Binds": ["/a:/b"],
                "Memory": 10**8,
                "NanoCpus": 5 * 10**8,
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "81": None},
                "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
                "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
                "ConsoleSize": [24, 80],
                "BlkioDeviceReadBps": [{"Path": "/dev/vdb", "Rate": 5}],
                "Init": False,
                "Unknown": {"ignored": 1},
            },
            NetworkingConfig={
                "EndpointsConfig": {
                    "net": {"Aliases": ["x"], "IPAMConfig": {"IPv4Address": "10.1.2.3"}, "MacAddress": "02:00:00:00:00:01"}
                }
            },
        )
        assert request.config == ContainerConfig(
            image="busybox",
            hostname="h",
            tty=True,
            env=("A=1",),
            cmd=("sh", "-c", "x"),
            exposed_ports=("80/tcp",),
            volumes=("/v",),
            labels=(("k", "v"),),
            stop_timeout=3,
            healthcheck=Healthcheck(("CMD", "x"), interval=SECOND),
        )
        assert request.host == HostConfig(
            limits=Limits(memory=10**8, nano_cpus=5 * 10**8, blkio_device_read_bps=(ThrottleDevice("/dev/vdb", 5),)),
            binds=("/a:/b",),
            port_bindings=(
                PortBindings("80/tcp", (PortBinding("", "8080"),)),
                PortBindings("81/tcp"),
            ),
            restart_policy=RestartPolicy("on-failure", 2),
            ulimits=(Ulimit("nofile", 1, 2),),
            console_size=(24, 80),
            init=False,
        )
        assert request.endpoints == (EndpointConfig("net", ("x",), (), "10.1.2.3", "02:00:00:00:00:01"),)
        assert (request.name, request.platform) == ("name", "linux/amd64")

    def test_keys_in_any_case(self) -> None:
        request = create(image="i", hostconfig={"memory": 5, "networkmode": "none"})
        assert (request.config.image, request.host.limits.memory, request.host.network_mode) == ("i", 5, "none")

    def test_a_command_as_one_text(self) -> None:
        assert create(Image="i", Cmd="ls", Entrypoint="").config.cmd == ("ls",)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"Tty": "yes"}, "json: cannot unmarshal string into Go struct field Config.Tty of type bool"),
            ({"Image": 5}, "cannot unmarshal number into Go struct field Config.Image of type string"),
            ({"Env": "A=1"}, r"cannot unmarshal string into Go struct field Config.Env of type \[\]string"),
            ({"Env": [1]}, "cannot unmarshal number into"),
            ({"HostConfig": []}, "cannot unmarshal array into Go value of type map"),
            ({"HostConfig": {"Memory": "1g"}}, "Go struct field Resources.Memory of type int64"),
            ({"HostConfig": {"Memory": 1 << 70}}, "of type int64"),
            ({"HostConfig": {"Memory": 1.5}}, "of type int64"),
            ({"HostConfig": {"PortBindings": {"80": [{"HostPort": []}]}}}, "PortBinding.HostPort of type string"),
            ({"Labels": ["a"]}, "of type map"),
        ],
    )
    def test_wrong_types(self, body: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidArgument, match=words):
            schema.decode_create(body, "", "")

    def test_no_body(self) -> None:
        with pytest.raises(InvalidArgument, match="config cannot be empty"):
            schema.decode_create(None, "", "")

    def test_mounts(self) -> None:
        mounts = [
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}},
            {
                "Type": "volume",
                "Target": "/c",
                "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}, "DriverConfig": {"Options": {"type": "tmpfs"}}},
            },
            {"Type": "tmpfs", "Target": "/d", "TmpfsOptions": {"SizeBytes": 5, "Mode": 448}},
        ]
        found = create(Image="i", HostConfig={"Mounts": mounts}).host.mounts
        assert found == (
            MountRequest("bind", "/a", "/b", read_only=True, propagation="rslave"),
            MountRequest("volume", "", "/c", no_copy=True, labels=(("a", "b"),), driver_options=(("type", "tmpfs"),)),
            MountRequest("tmpfs", "", "/d", tmpfs_size=5, tmpfs_mode=448),
        )
        assert schema.encode_host_config(HostConfig(mounts=found))["Mounts"][0] == mounts[0]


class TestUpdate:
    def test_only_what_is_given(self) -> None:
        changes, policy = schema.decode_limits_update({"Memory": 5, "CpuShares": 0, "RestartPolicy": {"Name": ""}})
        assert changes == {"memory": 5, "cpu_shares": 0}
        assert policy is None

    def test_a_policy(self) -> None:
        _, policy = schema.decode_limits_update({"RestartPolicy": {"Name": "always"}})
        assert policy == RestartPolicy("always")


PORT = PublishedPort(80, "tcp", "0.0.0.0", 8080, 40001)
VIEW = NetworkView(
    "bridge", EndpointConfig("bridge"), "n" * 64, "e" * 64, "172.17.0.2", 16, "172.17.0.1", "02:42:ac:11:00:02", (), (PORT,),
    "/run/pyboxd/netns/x",
)  # fmt: skip


def box(**state: Any) -> Record:
    return Record(
        id="c" * 64,
        name="box",
        created=SECOND,
        image_id="sha256:1",
        image_name="img",
        platform="linux",
        config=ContainerConfig(image="img", cmd=("a b", "c d"), exposed_ports=("80/tcp", "81/tcp"), labels=(("k", "v"),)),
        host=validate.with_defaults(HostConfig()),
        mounts=(MountPoint("bind", "/b", "/a", propagation="rprivate"), MountPoint("tmpfs", "/t", shown=False)),
        state=State(**state),
    )


class TestInspect:
    def inspect(self, record: Record) -> Any:
        return containers.inspect(record, containers.Paths("/d", "/d/log", "/d/upper", "/d/work"), (VIEW,), (), None)

    def test_a_running_container(self) -> None:
        value = self.inspect(box(status=Status.RUNNING, pid=7, started_at=2 * SECOND))
        assert value["State"] == {
            "Status": "running",
            "Running": True,
            "Paused": False,
            "Restarting": False,
            "OOMKilled": False,
            "Dead": False,
            "Pid": 7,
            "ExitCode": 0,
            "Error": "",
            "StartedAt": "1970-01-01T00:00:02Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
        }
        assert (value["Path"], value["Args"], value["Name"]) == ("a b", ["c d"], "/box")
        assert value["Mounts"] == [
            {"Type": "bind", "Source": "/a", "Destination": "/b", "Mode": "", "RW": True, "Propagation": "rprivate"}
        ]
        settings = value["NetworkSettings"]
        assert settings["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None}
        assert settings["IPAddress"] == settings["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
        assert value["ExecIDs"] is None

    def test_zero_values_are_dockers(self) -> None:
        value = self.inspect(box())
        config, host = value["Config"], value["HostConfig"]
        assert (config["Env"], config["Entrypoint"], config["Volumes"], config["OnBuild"]) == ([], None, None, None)
        assert "StopTimeout" not in config
        assert "Healthcheck" not in config
        assert host["Binds"] is None
        assert host["PortBindings"] == {}
        assert host["PidsLimit"] is None
        assert host["Devices"] == []
        assert "Init" not in host
        assert "Mounts" not in host
        assert host["ConsoleSize"] == [0, 0]
        assert host["CpuCount"] == 0
        assert value["NetworkSettings"]["Ports"] == {}

    def test_what_is_set_to_false_or_zero_is_shown(self) -> None:
        record = box()
        record = replace(record, host=replace(record.host, init=False), config=replace(record.config, stop_timeout=0))
        value = self.inspect(record)
        assert (value["HostConfig"]["Init"], value["Config"]["StopTimeout"]) == (False, 0)


class TestList:
    def summary(self, record: Record, now: int = 0) -> Any:
        return containers.summary(record, "img", (VIEW,), now, None)

    def test_an_entry(self) -> None:
        value = self.summary(box(status=Status.RUNNING, started_at=SECOND), 3 * SECOND)
        assert value["Names"] == ["/box"]
        assert value["Command"] == "a b 'c d'"
        assert value["Created"] == 1
        assert value["State"] == "running"
        assert value["Status"] == "Up 2 seconds"
        assert value["Ports"] == [
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 81, "Type": "tcp"},
        ]
        assert "SizeRw" not in value

    @pytest.mark.parametrize(
        ("state", "text"),
        [
            (State(), "Created"),
            (State(Status.RUNNING), "Up About a minute"),
            (State(Status.PAUSED), "Up About a minute (Paused)"),
            (State(Status.RUNNING, health=Health()), "Up About a minute (health: starting)"),
            (State(Status.RUNNING, health=Health("unhealthy")), "Up About a minute (unhealthy)"),
            (State(Status.EXITED, exit_code=2, started_at=1, finished_at=30 * SECOND), "Exited (2) 30 seconds ago"),
            (State(Status.RESTARTING, exit_code=1, finished_at=59 * SECOND), "Restarting (1) 1 second ago"),
            (State(Status.DEAD), "Dead"),
        ],
    )
    def test_status(self, state: State, text: str) -> None:
        assert containers.status_text(state, 60 * SECOND) == text

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.5, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (15 * 86400, "2 weeks"),
            (100 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ],
    )
    def test_durations(self, seconds: float, text: str) -> None:
        assert containers.human_duration(int(seconds * SECOND)) == text


class TestExec:
    def test_configuration(self) -> None:
        config = exec.decode_config({"Cmd": ["a", "b"], "AttachStdout": True, "User": "u", "ConsoleSize": [1, 2]})
        assert (config.cmd, config.attach_stdout, config.user, config.console_size) == (("a", "b"), True, "u", (1, 2))
        assert exec.decode_start(None) == exec.ExecStart()
        assert exec.decode_start({"Detach": True}).detach


class TestNetworks:
    def test_create(self) -> None:
        body = {
            "Name": "n",
            "Driver": "",
            "Internal": True,
            "Options": {"a": "b"},
            "IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1"}]},
        }
        request = networks.decode_create(body)
        assert (request.name, request.driver, request.internal) == ("n", "bridge", True)
        assert (request.ipv4, request.options) == (PoolRequest("10.9.0.0/16", "10.9.0.1"), {"a": "b"})
        assert request.ipv6 is None  # its pool is passed over, as it was not enabled

    def test_create_with_ipv6(self) -> None:
        six = {"Subnet": "fd00::/64", "Gateway": "fd00::9", "IPRange": "fd00::/96", "AuxiliaryAddresses": {"a": "fd00::7"}}
        request = networks.decode_create({"Name": "n", "EnableIPv6": True, "IPAM": {"Config": [six]}})
        assert request.ipv4 == PoolRequest()
        assert request.ipv6 == PoolRequest("fd00::/64", "fd00::9", "fd00::/96", {"a": "fd00::7"})
        assert networks.decode_create({"Name": "n", "EnableIPv6": True}).ipv6 == PoolRequest()
        with pytest.raises(Forbidden, match="bridge driver doesn't support multiple subnets"):
            networks.decode_create({"Name": "n", "EnableIPv6": True, "IPAM": {"Config": [six, {"Subnet": "fd01::/64"}]}})

    def test_families_are_chosen_by_key_or_by_the_drivers_option(self) -> None:
        def chosen(**body: object) -> tuple[bool, bool]:
            request = networks.decode_create({"Name": "n", **body})
            return request.ipv4 is not None, request.ipv6 is not None

        on, off = ({"com.docker.network.enable_ipv6": text} for text in ("true", "0"))
        assert chosen() == chosen(EnableIPv6=False) == chosen(EnableIPv6=None) == chosen(Options=off) == (True, False)
        assert chosen(EnableIPv6=True) == chosen(Options=on) == chosen(EnableIPv6=True, Options=off) == (True, True)
        assert chosen(EnableIPv4=False, EnableIPv6=True) == (False, True)
        with pytest.raises(InvalidArgument, match=r'driver-opt "com\.docker\.network\.enable_ipv6" is not a valid bool'):
            chosen(Options={"com.docker.network.enable_ipv6": "yes"})
        with pytest.raises(InvalidArgument):
            chosen(EnableIPv6="true")

    def test_a_network_with_ipv6(self) -> None:
        pools = (
            Pool(ip_network("172.18.0.0/16"), ip_address("172.18.0.1")),
            Pool(ip_network("fd00::/64"), ip_address("fd00::1"), ip_network("fd00::/96"), {"a": ip_address("fd00::7")}),
        )
        endpoint = Endpoint("e", "c", "i", IPv4Address("172.18.0.2"), "", "veth1", "eth0", address6=IPv6Address("fd00::2"))
        value = networks.network(Network("i", "n", "bridge", 0.0, *pools), [networks.Member("web", endpoint)])
        assert (value["EnableIPv4"], value["EnableIPv6"]) == (True, True)
        assert value["IPAM"]["Config"] == [
            {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"},
            {"Subnet": "fd00::/64", "Gateway": "fd00::1", "IPRange": "fd00::/96", "AuxiliaryAddresses": {"a": "fd00::7"}},
        ]
        member = value["Containers"]["c"]
        assert (member["IPv4Address"], member["IPv6Address"]) == ("172.18.0.2/16", "fd00::2/64")
        value = networks.network(Network("i", "n", "bridge", 0.0, pools[0]), [networks.Member("web", endpoint)])
        assert value["EnableIPv6"] is False and value["Containers"]["c"]["IPv6Address"] == ""

    def test_an_endpoint_with_ipv6(self) -> None:
        _, config = networks.decode_connect(
            {"Container": "c", "EndpointConfig": {"IPAMConfig": {"IPv6Address": "fd00::2"}}}, "n"
        )
        assert config == EndpointConfig("n", ipv6_address="fd00::2")
        value = containers.network_settings(NetworkView("n", config, address6="fd00::2", prefix6=64, gateway6="fd00::1"))
        assert value["IPAMConfig"] == {"IPv6Address": "fd00::2"}
        assert (value["GlobalIPv6Address"], value["GlobalIPv6PrefixLen"], value["IPv6Gateway"]) == ("fd00::2", 64, "fd00::1")

    def test_connect(self) -> None:
        body = {"Container": "c", "EndpointConfig": {"Aliases": ["x"]}}
        assert networks.decode_connect(body, "n") == ("c", EndpointConfig("n", ("x",)))
        with pytest.raises(InvalidArgument, match="value is empty"):
            networks.decode_connect({}, "n")
        assert networks.decode_disconnect({"Container": "c", "Force": True}) == ("c", True)


class TestStats:
    def sample(self, read_at: int, cpu: int) -> Sample:
        used = Stats(cpu, 1, 2, 0, 0, 0, 4096, 0, {"inactive_file": 1}, 0, 3, 0, (BlockIo(254, 0, 10, 20, 1, 2),))
        return Sample(read_at, used, (Interface("eth0", 1, 2, 3, 4, 5, 6, 7, 8),), 1000, 2, 10**9)

    def test_two_readings(self) -> None:
        value = stats.stats("id", "n", self.sample(2 * SECOND, 50), self.sample(SECOND, 40))
        assert value["read"] == "1970-01-01T00:00:02Z"
        assert value["preread"] == "1970-01-01T00:00:01Z"
        assert value["cpu_stats"]["cpu_usage"]["total_usage"] == 50
        assert value["precpu_stats"]["cpu_usage"]["total_usage"] == 40
        assert (value["cpu_stats"]["online_cpus"], value["cpu_stats"]["system_cpu_usage"]) == (2, 1000)
        assert value["memory_stats"] == {"usage": 4096, "stats": {"inactive_file": 1}, "limit": 10**9}
        assert value["networks"]["eth0"]["tx_bytes"] == 5
        assert value["blkio_stats"]["io_service_bytes_recursive"][1]["value"] == 20
        assert value["pids_stats"] == {"current": 3}

    def test_one_that_does_not_run(self) -> None:
        value = stats.stats("id", "n", Sample(5), None)
        assert (value["id"], value["name"], value["memory_stats"]) == ("id", "/n", {})
        assert value["read"] == "0001-01-01T00:00:00Z"
