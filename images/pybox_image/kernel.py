"""The kernel package: the image to boot and the modules that a machine needs, each with all that it depends on."""

from __future__ import annotations

import lzma
import posixpath
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pybox_image.errors import ImageError

_BOOT = "boot/vmlinuz-"
_SETUP_MAGIC = b"HdrS"
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Module:
    """One module, decompressed. `path` is relative to the modules folder ("kernel/fs/ext4/ext4.ko");
    `depends` are module names, `aliases` are the patterns by which the kernel asks for it."""

    name: str
    path: str
    data: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package. `packed` maps module names to (path, function that gives the bytes)."""

    release: str
    image: bytes
    packed: dict[str, tuple[str, Callable[[], bytes]]]
    builtin: frozenset[str]
    builtin_list: bytes
    _modules: dict[str, Module] = field(default_factory=dict)

    def module(self, name: str) -> Module:
        """Return a module by name. Raises ImageError when the package has none by that name."""
        if name not in self._modules:
            try:
                path, load = self.packed[name]
            except KeyError:
                raise ImageError(f"the kernel {self.release} has no module {name}") from None
            data = _decompress(path, load())
            info = modinfo(data)
            depends = [_name(word) for text in info.get("depends", ()) for word in text.split(",") if word]
            # A soft dependency is loaded when it exists; "pre:" ones are needed for the module to work at all.
            depends += [word for text in info.get("softdep", ()) for word in _soft(text) if word in self.packed]
            plain = path.removesuffix(".xz")
            self._modules[name] = Module(name, plain, data, tuple(depends), tuple(info.get("alias", ())))
        return self._modules[name]

    def closure(self, wanted: Iterable[str]) -> list[Module]:
        """Return the wanted modules and what they depend on, in the order in which they can be loaded.

        `wanted` are module names, or shell patterns of paths ("kernel/net/netfilter/*"). Names that are built
        into the kernel are left out.
        """
        ordered: dict[str, Module] = {}
        begun: set[str] = set()  # soft dependencies may be circular

        def visit(name: str) -> None:
            if name in begun or name in self.builtin:
                return
            begun.add(name)
            module = self.module(name)
            for other in module.depends:
                visit(other)
            ordered[name] = module

        for word in wanted:
            for name in self._expand(word):
                visit(name)
        return list(ordered.values())

    def _expand(self, word: str) -> list[str]:
        if "/" not in word:
            return [word]
        return sorted(name for name, (path, _load) in self.packed.items() if fnmatchcase(path, word))


def read(archive: tarfile.TarFile) -> Kernel:
    """Read a kernel package (the opened data archive of a `linux-image` .deb)."""
    image: tuple[str, bytes] | None = None
    packed: dict[str, tuple[str, Callable[[], bytes]]] = {}
    builtin = b""
    for member in archive:
        path = member.name.removeprefix("./")
        if not member.isreg():
            continue
        if path.startswith(_BOOT):
            image = path.removeprefix(_BOOT), _bytes(archive, member)
        elif path.endswith("/modules.builtin"):
            builtin = _bytes(archive, member)
        elif ".ko" in posixpath.basename(path):
            relative = "kernel/" + path.partition("/kernel/")[2]
            packed[_name(path)] = relative, lambda member=member: _bytes(archive, member)  # type: ignore[misc]
    if image is None:
        raise ImageError("the kernel package is not complete", "it has no boot/vmlinuz")
    names = frozenset(_name(line) for line in builtin.decode().split())
    return Kernel(image[0], _bootable(image[1]), packed, names, builtin)


def dependency_file(modules: Iterable[Module]) -> bytes:
    """Return the text of `modules.dep`: each module's path and the paths of all it needs, the last to be loaded first."""
    table = {module.name: module for module in modules}

    def collect(module: Module, begun: set[str], found: list[str]) -> None:
        for name in module.depends:
            if name in table and name not in begun:
                begun.add(name)
                collect(table[name], begun, found)
                found.append(table[name].path)

    lines = []
    for module in table.values():
        found: list[str] = []
        collect(module, {module.name}, found)
        lines.append(" ".join([f"{module.path}:", *reversed(found)]) + "\n")
    return "".join(lines).encode()


def alias_file(modules: Iterable[Module]) -> bytes:
    """Return the text of `modules.alias`, by which the kernel's own requests find a module."""
    return "".join(f"alias {alias} {module.name}\n" for module in modules for alias in module.aliases).encode()


def modinfo(module: bytes) -> dict[str, list[str]]:
    """Return the key=value strings in the `.modinfo` section of a 64-bit little-endian ELF module."""
    if module[:6] != b"\x7fELF\x02\x01":
        raise ImageError("a kernel module cannot be read", "it is not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", module, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", module, 0x3A)
    # Section header: name offset (4), type (4), flags (8), address (8), file offset (8), size (8)
    sections = [struct.unpack_from("<II QQ QQ", module, table + number * size) for number in range(count)]
    names = sections[names_index][4]
    found: dict[str, list[str]] = {}
    for name, _type, _flags, _address, offset, length in sections:
        if module[names + name : names + name + 9] == b".modinfo\0":
            for item in module[offset : offset + length].split(b"\0"):
                key, _, value = item.decode("utf-8", "replace").partition("=")
                if key:
                    found.setdefault(key, []).append(value)
    return found


@dataclass(frozen=True)
class Payload:
    """The kernel inside a bzImage: an ELF file compressed with zstd, and its size in bytes when unpacked."""

    data: bytes
    size: int


def payload(image: bytes) -> Payload | None:
    """Return the compressed ELF kernel inside an x86 image; None for other architectures and other compressions.

    QEMU boots the ELF file directly (PVH), which saves the emulated CPU half a second of decompression. The fields
    are those of https://docs.kernel.org/arch/x86/boot.html.
    """
    if image[0x202:0x206] != _SETUP_MAGIC:
        return None
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    data = image[start : start + length]
    if not data.startswith(_ZSTD):
        return None
    # Behind the compressed data stands the size of what it holds.
    return Payload(data[:-4], int.from_bytes(data[-4:], "little"))


def _soft(text: str) -> list[str]:
    """Return the names after "pre:" in a softdep string such as "pre: crc32c post: foo"."""
    names: list[str] = []
    kind = ""
    for word in text.split():
        if word.endswith(":"):
            kind = word
        elif kind == "pre:":
            names.append(_name(word))
    return names


def _name(path: str) -> str:
    """Return a module's name in the kernel's spelling: `a-b.ko.xz` is `a_b`."""
    return posixpath.basename(path).partition(".ko")[0].replace("-", "_")


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    return stream.read() if stream is not None else b""


def _decompress(path: str, data: bytes) -> bytes:
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".ko"):
        return data
    raise ImageError("a kernel module cannot be read", f"{path} is compressed in an unknown way")


def _bootable(image: bytes) -> bytes:
    """Return a kernel that QEMU boots directly.

    arm64 kernels are packed as an EFI program around a compressed image, which QEMU before 8.1 cannot open:
    https://docs.kernel.org/admin-guide/efi-stub.html. The plain image inside is what is shipped.
    """
    if image[:2] != b"MZ" or image[4:8] != b"zimg":
        return image
    offset, size = struct.unpack_from("<II", image, 8)
    compression = image[24:56].partition(b"\0")[0]
    if compression != b"gzip":
        raise ImageError("the kernel cannot be unpacked", f"its image is compressed with {compression!r}")
    return zlib.decompress(image[offset : offset + size], wbits=31)
