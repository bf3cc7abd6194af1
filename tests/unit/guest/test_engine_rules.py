"""Small rules of the engine: merging, rights, checks, policies, names, signals, times."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from pyboxd.engine import cpus, logconfig, merge, names, restart, security, signals, timestamps, validate
from pyboxd.engine.model import (
    ContainerConfig,
    DeviceRequest,
    HostConfig,
    Limits,
    LogConfig,
    Record,
    RestartPolicy,
    Ulimit,
)
from pyboxd.engine.resources import resources
from pyboxd.engine.specs import environment, merge_environment, rlimits
from pyboxd.errors import Conflict, InvalidArgument
from pyboxd.frozen import replace
from pyboxd.linux import caps
from pyboxd.model import Healthcheck, ImageConfig
from pyboxd.runtime.spec import DEFAULT_CAPABILITIES, IoLimit, Rlimit

IMAGE = ImageConfig(
    user="app",
    exposed_ports=("80/tcp",),
    env=("PATH=/bin", "A=image"),
    entrypoint=("/entry",),
    cmd=("serve",),
    volumes=("/data",),
    working_dir="/srv",
    labels=MappingProxyType({"a": "image", "b": "image"}),
    healthcheck=Healthcheck(("CMD", "check"), interval=5, retries=2),
)


def record(**changes: object) -> Record:
    made = Record("c" * 64, "name", 1, "sha256:1", "image", "linux", ContainerConfig(), HostConfig())
    return replace(made, **changes)


class TestMerge:
    def test_what_is_not_given_comes_from_the_image(self) -> None:
        merged = merge.merge(ContainerConfig(env=("A=own", "B=own"), labels=(("a", "own"),)), IMAGE)
        assert merged.env == ("A=own", "B=own", "PATH=/bin")
        assert dict(merged.labels) == {"a": "own", "b": "image"}
        assert (merged.user, merged.working_dir, merged.volumes) == ("app", "/srv", ("/data",))
        assert (merged.entrypoint, merged.cmd) == (("/entry",), ("serve",))

    def test_a_command_keeps_the_images_entry_point(self) -> None:
        merged = merge.merge(ContainerConfig(cmd=("other",)), IMAGE)
        assert (merged.entrypoint, merged.cmd) == (("/entry",), ("other",))

    def test_an_entry_point_forgets_the_images_command(self) -> None:
        merged = merge.merge(ContainerConfig(entrypoint=("/mine",)), IMAGE)
        assert (merged.entrypoint, merged.cmd) == (("/mine",), None)

    def test_an_empty_entry_point_is_none(self) -> None:
        merged = merge.merge(ContainerConfig(entrypoint=("",), cmd=("x",)), IMAGE)
        assert (merged.entrypoint, merged.cmd) == (None, ("x",))

    def test_no_command_at_all(self) -> None:
        with pytest.raises(InvalidArgument, match="no command specified"):
            merge.merge(ContainerConfig(), ImageConfig())

    def test_a_healthcheck_is_completed(self) -> None:
        merged = merge.merge(ContainerConfig(healthcheck=Healthcheck(retries=7)), IMAGE)
        assert merged.healthcheck == Healthcheck(("CMD", "check"), interval=5, retries=7)


class TestSecurity:
    def test_defaults(self) -> None:
        rights = security.work_out(HostConfig())
        assert rights.capabilities == DEFAULT_CAPABILITIES
        assert (rights.seccomp, rights.no_new_privileges) == ("default", False)
        assert "/proc/kcore" in rights.masked_paths

    @pytest.mark.parametrize(
        ("add", "drop", "expected"),
        [
            (["sys_admin"], [], DEFAULT_CAPABILITIES | {"CAP_SYS_ADMIN"}),
            ([], ["CAP_CHOWN"], DEFAULT_CAPABILITIES - {"CAP_CHOWN"}),
            ([], ["ALL"], frozenset()),
            (["NET_RAW"], ["all"], {"CAP_NET_RAW"}),
            (["ALL"], ["MKNOD"], caps.ALL - {"CAP_MKNOD"}),
        ],
    )
    def test_capabilities(self, add: list[str], drop: list[str], expected: set[str]) -> None:
        assert security.capabilities(add, drop) == expected

    def test_an_unknown_capability(self) -> None:
        with pytest.raises(InvalidArgument, match='invalid CapAdd: unknown capability: "CAP_FOO"'):
            security.capabilities(["FOO"], [])

    def test_privileged(self) -> None:
        rights = security.work_out(HostConfig(privileged=True))
        assert rights.capabilities == caps.ALL
        assert (rights.seccomp, rights.masked_paths, rights.readonly_paths) == ("unconfined", (), ())

    def test_options(self) -> None:
        options = ("no-new-privileges", 'seccomp={"defaultAction": "x:y=z"}', "systempaths=unconfined", "label=disable")
        rights = security.work_out(HostConfig(security_opt=options))
        assert rights.no_new_privileges
        assert rights.seccomp == '{"defaultAction": "x:y=z"}'
        assert rights.masked_paths == ()

    def test_the_old_form_with_a_colon(self) -> None:
        assert security.work_out(HostConfig(security_opt=("seccomp:unconfined",))).seccomp == "unconfined"

    @pytest.mark.parametrize("option", ["nonsense", "no-new-privileges=maybe", "x=y"])
    def test_unknown_options(self, option: str) -> None:
        with pytest.raises(InvalidArgument, match="invalid --security-opt"):
            security.work_out(HostConfig(security_opt=(option,)))


class TestValidate:
    @pytest.mark.parametrize(
        ("host", "words"),
        [
            (HostConfig(limits=Limits(memory=1024)), "Minimum memory limit allowed is 6MB"),
            (HostConfig(limits=Limits(memory=10**7, memory_swap=10**6)), "Minimum memoryswap limit"),
            (HostConfig(limits=Limits(memory_swap=10**7)), "You should always set the Memory limit"),
            (HostConfig(limits=Limits(nano_cpus=10**9, cpu_period=1000)), "Nano CPUs and CPU Period"),
            (HostConfig(limits=Limits(nano_cpus=10**15)), "ange of CPUs is from 0.01"),
            (HostConfig(limits=Limits(cpuset_cpus="4000")), "Requested CPUs are not available"),
            (HostConfig(limits=Limits(cpuset_cpus="a")), "Invalid value a for cpuset cpus"),
            (HostConfig(limits=Limits(blkio_weight=5)), "lkio weight is from 10 to 1000"),
            (HostConfig(restart_policy=RestartPolicy("sometimes")), "unknown policy 'sometimes'"),
            (HostConfig(restart_policy=RestartPolicy("always", 3)), "can only be used with 'on-failure'"),
            (HostConfig(restart_policy=RestartPolicy("always"), auto_remove=True), "can't create 'AutoRemove'"),
            (HostConfig(oom_score_adj=2000), "range for oom score adj"),
            (HostConfig(shm_size=-1), "SHM size can not be less than 0"),
            (HostConfig(runtime="kata"), "unknown or invalid runtime name: kata"),
            (
                HostConfig(log_config=LogConfig("syslog")),
                'error looking up logging plugin syslog: plugin "syslog" not found',
            ),
            (HostConfig(device_requests=(DeviceRequest("", (("gpu",),)),)), "could not select device driver"),
        ],
    )
    def test_refusals(self, host: HostConfig, words: str) -> None:
        with pytest.raises(InvalidArgument, match=words):
            validate.check_create(ContainerConfig(), host)

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            (ContainerConfig(env=("=x",)), "invalid environment variable"),
            (ContainerConfig(working_dir="x"), "needs to be an absolute path"),
            (ContainerConfig(healthcheck=Healthcheck(interval=5)), "Interval in Healthcheck"),
        ],
    )
    def test_refused_configurations(self, config: ContainerConfig, words: str) -> None:
        with pytest.raises(InvalidArgument, match=words):
            validate.check_create(config, HostConfig())

    def test_a_shared_network_allows_no_settings_of_its_own(self) -> None:
        host = HostConfig(network_mode="container:x", dns=("1.1.1.1",))
        with pytest.raises(InvalidArgument, match="dns and the network mode"):
            validate.check_create(ContainerConfig(), host)

    def test_what_the_kernel_does_not_have_is_a_warning(self) -> None:
        warnings = validate.check_limits(Limits(kernel_memory=1, memory_swappiness=5, oom_kill_disable=True))
        assert len(warnings) == 3

    def test_defaults(self) -> None:
        host = validate.with_defaults(HostConfig(limits=Limits(memory=10**8)))
        assert host.limits.memory_swap == 2 * 10**8
        assert (host.network_mode, host.ipc_mode, host.shm_size) == ("bridge", "private", 64 << 20)
        assert (host.log_config.type, host.restart_policy.name) == ("json-file", "no")


class TestResources:
    def test_cpus(self) -> None:
        limits = resources(Limits(nano_cpus=1_500_000_000))
        assert (limits.cpu_quota_us, limits.cpu_period_us) == (150_000, 100_000)

    def test_quota(self) -> None:
        limits = resources(Limits(cpu_quota=5000, cpu_period=10_000))
        assert (limits.cpu_quota_us, limits.cpu_period_us) == (5000, 10_000)

    def test_devices_are_gathered(self) -> None:
        from pyboxd.engine.model import ThrottleDevice

        limits = Limits(
            blkio_device_read_bps=(ThrottleDevice("/dev/a", 1),), blkio_device_write_iops=(ThrottleDevice("/dev/a", 2),)
        )
        assert resources(limits).io == (IoLimit("/dev/a", read_bps=1, write_iops=2),)

    def test_ulimits(self) -> None:
        assert rlimits(HostConfig(ulimits=(Ulimit("nofile", 1, 2),))) == (Rlimit("nofile", 1, 2),)


class TestEnvironment:
    def test_dockers_first(self) -> None:
        made = record(config=ContainerConfig(hostname="h", tty=True, env=("PATH=/x", "EMPTY=")))
        assert environment(made) == ("PATH=/x", "HOSTNAME=h", "TERM=xterm", "EMPTY=")

    def test_a_name_alone_removes(self) -> None:
        assert merge_environment({"A": "1", "B": "2"}, ("A", "C=3")) == ("B=2", "C=3")


class TestRestart:
    @pytest.mark.parametrize(
        ("policy", "code", "restarts", "stopped", "expected"),
        [
            (RestartPolicy("no"), 1, 0, False, False),
            (RestartPolicy("always"), 0, 9, True, True),
            (RestartPolicy("unless-stopped"), 0, 9, False, True),
            (RestartPolicy("unless-stopped"), 0, 9, True, False),
            (RestartPolicy("on-failure"), 0, 0, False, False),
            (RestartPolicy("on-failure"), 1, 99, False, True),
            (RestartPolicy("on-failure", 3), 1, 2, False, True),
            (RestartPolicy("on-failure", 3), 1, 3, False, False),
        ],
    )
    def test_wanted(self, policy: RestartPolicy, code: int, restarts: int, stopped: bool, expected: bool) -> None:
        assert restart.wanted(policy, code, restarts, stopped) is expected

    def test_delays_double_and_start_again_after_a_long_run(self) -> None:
        delays = [0.0]
        for _ in range(12):
            delays.append(restart.delay(delays[-1], 1.0))
        assert delays[1:4] == [0.1, 0.2, 0.4]
        assert delays[-1] == 60.0
        assert restart.delay(60.0, 11.0) == 0.1


class TestNames:
    def test_given_names(self) -> None:
        assert names.check("/web.1") == "web.1"
        for wrong in ("-x", "x", "a b", ""):
            with pytest.raises(InvalidArgument, match="Invalid container name"):
                names.check(wrong)

    def test_invented_names_are_valid_and_free(self) -> None:
        taken = {names.invent(lambda _: False)}
        for _ in range(50):
            name = names.invent(taken.__contains__)
            assert name not in taken
            assert names.check(name) == name
            taken.add(name)

    def test_no_free_name(self) -> None:
        with pytest.raises(Conflict):
            names.invent(lambda _: True)


class TestSignals:
    @pytest.mark.parametrize(
        ("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("HUP", 1), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
    )
    def test_known(self, text: str, number: int) -> None:
        assert signals.parse(text) == number

    @pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "RTMIN+99", "RTMIN+x"])
    def test_unknown(self, text: str) -> None:
        with pytest.raises(InvalidArgument, match="invalid signal"):
            signals.parse(text)


class TestTimes:
    def test_output(self) -> None:
        assert timestamps.rfc3339(0) == "0001-01-01T00:00:00Z"
        assert timestamps.rfc3339(1_500_000_000) == "1970-01-01T00:00:01.5Z"
        assert timestamps.rfc3339(1_000_000_000, fixed=True) == "1970-01-01T00:00:01.000000000Z"

    @pytest.mark.parametrize(
        ("text", "nanoseconds"),
        [
            ("12", 12 * 10**9),
            ("12.000000005", 12 * 10**9 + 5),
            ("1970-01-01T00:00:01.25Z", 1_250_000_000),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1970-01-02", 86400 * 10**9),
        ],
    )
    def test_input(self, text: str, nanoseconds: int) -> None:
        assert timestamps.parse(text) == nanoseconds

    def test_what_is_no_time(self) -> None:
        with pytest.raises(InvalidArgument, match="parsing time"):
            timestamps.parse("yesterday")

    def test_durations(self) -> None:
        assert timestamps.duration("1h30m") == 5400 * 10**9
        with pytest.raises(InvalidArgument):
            timestamps.duration("5 minutes")


class TestLogOptions:
    def test_sizes_are_decimal(self) -> None:
        assert logconfig.parse_size("10m") == 10_000_000
        assert logconfig.parse_size("1.5k") == 1500
        for wrong in ("", "0", "x", "-5"):
            with pytest.raises(InvalidArgument):
                logconfig.parse_size(wrong)

    def test_settings(self) -> None:
        config = LogConfig("json-file", (("max-size", "1k"), ("max-file", "3")))
        assert (logconfig.settings(config, "p").max_size, logconfig.settings(config, "p").max_file) == (1000, 3)
        assert logconfig.settings(LogConfig("local"), "p").max_file == 5

    def test_unknown_options(self) -> None:
        with pytest.raises(InvalidArgument, match="unknown log opt 'x' for json-file log driver"):
            logconfig.check(LogConfig("json-file", (("x", "y"),)))

    def test_details(self) -> None:
        made = record(
            config=ContainerConfig(labels=(("l", "1"), ("m", "2")), env=("A=3",)),
            host=HostConfig(log_config=LogConfig("json-file", (("labels", "l"), ("env", "A,none")))),
        )
        assert logconfig.details(made) == {"A": "3", "l": "1"}


def test_lists_of_processors() -> None:
    assert cpus.parse_list("0-2,5") == {0, 1, 2, 5}
    assert cpus.format_list(frozenset({0, 1, 2, 5, 7, 8})) == "0-2,5,7-8"
    for wrong in ("", "x", "3-1", "-1"):
        with pytest.raises(ValueError):
            cpus.parse_list(wrong)
