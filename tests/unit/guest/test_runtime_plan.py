"""The order and the content of what a container's first process does."""

from __future__ import annotations

from typing import Any

import pytest

from pyboxd import locations
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import replace
from pyboxd.linux import caps
from pyboxd.linux import constants as k
from pyboxd.runtime import devices, filesystem, setup
from pyboxd.runtime.operation import Operation
from pyboxd.runtime.plan import bounding_mask, describe_plan, filtered, make_exec_plan, make_plan
from pyboxd.runtime.spec import ContainerSpec, Device, ExecSpec, Mount, Resources, Rlimit, RootFilesystem

SPEC = ContainerSpec(
    id="c1", root=RootFilesystem(("/l1", "/l2"), "/u", "/w"), args=("sh",), run_dir="/run/c1", hostname="box"
)
READONLY = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_RDONLY


def operations(**settings: Any) -> list[Operation]:
    return list(make_plan(replace(SPEC, **settings)).operations)


def of_kind(kind: type[Operation], **settings: Any) -> list[Any]:
    return [operation for operation in operations(**settings) if isinstance(operation, kind)]


def position(made: list[Operation], kind: type[Operation]) -> int:
    return next(index for index, operation in enumerate(made) if isinstance(operation, kind))


def test_nothing_of_the_image_is_resolved_before_its_root_is_entered() -> None:
    mounts = (Mount("bind", "/src", "/dst"), Mount("tmpfs", "", "/t"))
    made = operations(mounts=mounts, devices=(Device("/dev/fuse", "/dev/fuse"),), terminal=True)
    entered = position(made, filesystem.EnterRoot)
    before, after = made[:entered], made[entered + 1 :]
    outside = (filesystem.TakeBind, filesystem.TakeNull, devices.FindDevice, filesystem.MountRoot, setup.SetOomScore)
    inside = (
        filesystem.MountSpecial,
        filesystem.PlaceBind,
        filesystem.MountTemporary,
        filesystem.MaskPath,
        filesystem.MakeDirectory,
        setup.FindUser,
        devices.CopyNodes,
        devices.OpenTerminal,
    )
    assert not [operation for operation in after if isinstance(operation, outside)]
    assert not [operation for operation in before if isinstance(operation, inside)]
    assert isinstance(made[0], setup.Harden)


def test_the_last_steps_close_everything_before_a_path_of_the_user_is_entered() -> None:
    names = [type(operation).__name__ for operation in operations()][-5:]
    assert names == ["SetRlimit", "NewSession", "CloseDescriptors", "EnterDirectory", "BecomeUser"]


def test_namespaces() -> None:
    everything = k.CLONE_NEWNS | k.CLONE_NEWPID | k.CLONE_NEWIPC | k.CLONE_NEWUTS | k.CLONE_NEWNET
    assert make_plan(SPEC).new_namespaces == everything
    assert of_kind(setup.LoopbackUp) and of_kind(setup.NewCgroupNamespace)
    host = replace(SPEC, network="host", pid_mode="host", ipc_mode="host", uts_mode="host", cgroup_mode="host")
    assert make_plan(host).new_namespaces == k.CLONE_NEWNS
    made = make_plan(host).operations
    assert not [o for o in made if isinstance(o, (setup.LoopbackUp, setup.NewCgroupNamespace, setup.SetNames))]
    shared = replace(SPEC, network="/run/ns/n", pid_mode="/proc/7/ns/pid", uts_mode="/proc/7/ns/uts")
    plan = make_plan(shared)
    assert plan.new_namespaces == k.CLONE_NEWNS | k.CLONE_NEWIPC and plan.pid_namespace == "/proc/7/ns/pid"
    entered = [(o.kind, o.path) for o in plan.operations if isinstance(o, setup.EnterNamespace)]
    assert entered == [("network", "/run/ns/n"), ("uts", "/proc/7/ns/uts")]


def test_the_kernels_file_systems_are_dockers() -> None:
    made = {operation.target: operation for operation in of_kind(filesystem.MountSpecial)}
    assert list(made) == [
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/mqueue",
        "/dev/shm",
        "/sys",
        "/sys/fs/cgroup",
    ]
    assert made["/sys"].attributes == made["/sys/fs/cgroup"].attributes == READONLY
    assert dict(made["/dev/shm"].options)["size"] == str(64 << 20)
    assert made["/dev"].attributes & k.MOUNT_ATTR_NOSUID
    privileged = {o.target: o for o in of_kind(filesystem.MountSpecial, privileged=True)}
    assert privileged["/sys"].attributes == READONLY & ~k.MOUNT_ATTR_RDONLY


def test_mounts_of_the_user_win_over_the_runtimes_own() -> None:
    mounts = (Mount("tmpfs", "", "/dev/shm"),)
    assert "/dev/shm" not in [o.target for o in of_kind(filesystem.MountSpecial, mounts=mounts)]
    mounts = (Mount("bind", "/dev", "/dev/"),)
    targets = [o.target for o in of_kind(filesystem.MountSpecial, mounts=mounts)]
    assert targets == ["/proc", "/sys", "/sys/fs/cgroup"]
    (terminal,) = of_kind(devices.OpenTerminal, mounts=mounts, terminal=True)
    assert not terminal.console


def test_mounts_go_from_the_outside_in() -> None:
    mounts = (Mount("bind", "/s", "/a/b/c"), Mount("tmpfs", "", "/a"), Mount("bind", "/s", "/a/b"))
    placed = [
        o.target for o in operations(mounts=mounts) if isinstance(o, (filesystem.PlaceBind, filesystem.MountTemporary))
    ]
    assert placed == ["/a", "/a/b", "/a/b/c"]
    taken = {o.number: o.target for o in of_kind(filesystem.TakeBind, mounts=mounts)}
    assert {o.number: o.target for o in of_kind(filesystem.PlaceBind, mounts=mounts)} == taken


def test_options_of_mounts() -> None:
    (tmpfs,) = of_kind(filesystem.MountTemporary, mounts=(Mount("tmpfs", "", "/t", options=("exec", "size=5m", "ro")),))
    assert tmpfs.attributes == k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_RDONLY
    assert tmpfs.options == (("size", "5m"),)
    (bind,) = of_kind(filesystem.TakeBind, mounts=(Mount("bind", "/s", "/t", readonly=True, options=("rbind", "nodev")),))
    assert bind.add == k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NODEV and bind.recursive
    for mount in (
        Mount("bind", "/s", "/t", options=("size=5",)),
        Mount("tmpfs", "", "/t", options=("lowerdir=/etc",)),
        Mount("bind", "/s", "/t", options=("nonsense",)),
        Mount("nfs", "/s", "/t"),
    ):
        with pytest.raises(InvalidArgument):
            make_plan(replace(SPEC, mounts=(mount,)))


def test_the_root_receives_mounts_only_if_a_mount_wants_them() -> None:
    assert of_kind(filesystem.DetachFromHost) == [filesystem.DetachFromHost("private")]
    mounts = (Mount("bind", "/s", "/t", propagation="rslave"),)
    assert of_kind(filesystem.DetachFromHost, mounts=mounts) == [filesystem.DetachFromHost("slave")]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("kernel.hostname", {}, 'sysctl "kernel.hostname" is not in a separate kernel namespace'),
        ("vm.swappiness", {}, "not in a separate kernel namespace"),
        ("kernel.core_pattern", {}, "not in a separate kernel namespace"),
        ("fs.file-max", {}, "not in a separate kernel namespace"),
        ("net.core.somaxconn", {"network": "host"}, "not allowed in host network namespace"),
        ("kernel.msgmax", {"ipc_mode": "host"}, "not allowed in the hosts ipc namespace"),
        ("kernel/shmmax", {"ipc_mode": "host"}, "not allowed in the hosts ipc namespace"),
        ("netfilter.x", {}, "not in a separate kernel namespace"),
    ],
)
def test_parameters_of_the_whole_machine_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make_plan(replace(SPEC, sysctls=((name, "1"),), **settings))


def test_parameters_of_the_containers_own() -> None:
    wanted = (("net.core.somaxconn", "5"), ("kernel.msgmax", "6"), ("net.ipv4.ip_unprivileged_port_start", "1024"))
    made = {o.name: o.value for o in of_kind(setup.SetSysctl, sysctls=wanted)}
    assert made == {"net.ipv4.ping_group_range": "0 2147483647", **dict(wanted)}
    assert not of_kind(setup.SetSysctl, network="host")


def test_privileged_is_everything_and_no_mask() -> None:
    spec = replace(SPEC, privileged=True)
    assert bounding_mask(spec) == (1 << len(caps.NAMES)) - 1
    assert not filtered(spec)
    assert not of_kind(filesystem.MaskPath, privileged=True) and not of_kind(filesystem.MakeReadonly, privileged=True)
    assert of_kind(devices.FindAllDevices, privileged=True)
    assert devices.allow_rules(spec) == ()


def test_capabilities() -> None:
    assert bounding_mask(SPEC) == 0xA80425FB  # what stock engines show in CapBnd
    with pytest.raises(InvalidArgument, match="CAP_NONSENSE"):
        bounding_mask(replace(SPEC, capabilities=frozenset({"CAP_NONSENSE"})))


def test_limits() -> None:
    assert of_kind(setup.SetRlimit) == [setup.SetRlimit("RLIMIT_NOFILE", 1024, 524288)]
    limits = (Rlimit("nofile", 5, 6), Rlimit("core", -1, -1))
    assert of_kind(setup.SetRlimit, rlimits=limits) == [
        setup.SetRlimit("RLIMIT_NOFILE", 5, 6),
        setup.SetRlimit("RLIMIT_CORE", -1, -1),
    ]


def test_an_exec_is_out_of_reach_before_it_joins() -> None:
    spec = ExecSpec("e", "c", 5, "/cg", ("sh",), "/run/e", terminal=True)
    plan = make_exec_plan(spec)
    names = [type(operation).__name__ for operation in plan.operations]
    assert names.index("Harden") < names.index("JoinContainer") < names.index("OpenTerminal")
    assert names[-3:] == ["CloseDescriptors", "EnterDirectory", "BecomeUser"]
    assert plan.new_namespaces == 0
    assert not next(o for o in plan.operations if isinstance(o, devices.OpenTerminal)).console


def test_a_plan_can_be_read() -> None:
    spec = replace(SPEC, resources=Resources(memory=64 << 20), mounts=(Mount("bind", "/src", "/dst"),))
    lines = describe_plan(spec)
    text = "\n".join(lines)
    assert lines[0] == f"cgroup {locations.CGROUP}/docker/c1"
    for part in (
        "memory.max 67108864",
        "overlay of 2 layers, changes in /u",
        "bind /src on /dst",
        "mask /proc/kcore",
        "become the user, at most CAP_CHOWN CAP_DAC_OVERRIDE",
        "filter system calls by the default profile",
    ):
        assert part in text
    assert lines[-1] == "execute sh"


def test_plans_are_values() -> None:
    assert make_plan(SPEC) == make_plan(replace(SPEC))
