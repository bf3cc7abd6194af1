"""Which packages a list of packages needs, and in which order they are unpacked."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pybox_image.debian.index import Index, Package, Term, fulfils
from pybox_image.errors import ImageError


def closure(index: Index, wanted: Iterable[str], *, omit: Collection[str] = ()) -> list[Package]:
    """Return the wanted packages and all that they depend on, sorted so that dependencies come first.

    A package named in `omit` is taken for granted: neither it nor what it alone needs is in the answer. Of several
    alternatives the one that is already chosen is taken, else the first that exists, as apt does.
    Raises ImageError when a dependency cannot be fulfilled or two of the packages exclude each other.
    """
    chosen: dict[str, Package] = {}
    queue = named(index, wanted)
    while queue:
        package = queue.pop(0)
        if package.name in chosen:
            continue
        chosen[package.name] = package
        # First all that was asked for by name: it decides between alternatives.
        for group in package.depends:
            if not any(term.name in omit for term in group) and not _met(group, [*chosen.values(), *queue]):
                queue.append(_choose(index, group, package))
    _refuse_conflicts(chosen.values())
    return _ordered(chosen)


def named(index: Index, names: Iterable[str]) -> list[Package]:
    """Return the packages of these names alone, in this order. Raises ImageError for one that does not exist."""
    return [_named(index, name) for name in names]


def _named(index: Index, name: str) -> Package:
    package = index.candidate(name)
    if package is None:
        raise ImageError(f"Debian has no package {name}", "it is in none of the suites that were read")
    return package


def _met(group: tuple[Term, ...], packages: Collection[Package]) -> bool:
    return any(fulfils(package, term) for term in group for package in packages)


def _choose(index: Index, group: tuple[Term, ...], owner: Package) -> Package:
    for term in group:
        package = index.candidate(term.name)
        if package is not None and term.accepts(package.version):
            return package
        providers = index.providers(term)
        if providers:
            return providers[0]
    wanted = " | ".join(map(str, group))
    raise ImageError(f"{owner.name} {owner.version} cannot be installed", f"nothing fulfils its dependency {wanted}")


def _refuse_conflicts(packages: Collection[Package]) -> None:
    for package in packages:
        for term in package.conflicts:
            for other in packages:
                if other.name != package.name and fulfils(other, term):
                    raise ImageError(
                        f"{package.name} and {other.name} cannot be installed together",
                        f"{package.name} {package.version} excludes {term}",
                    )


def _ordered(chosen: dict[str, Package]) -> list[Package]:
    """Sort so that a package follows what it depends on; the members of a cycle come in the order they are met."""
    done: dict[str, Package] = {}
    begun: set[str] = set()

    def visit(package: Package) -> None:
        if package.name in begun:
            return
        begun.add(package.name)
        for group in package.depends:
            for other in chosen.values():
                if any(fulfils(other, term) for term in group):
                    visit(other)
        done[package.name] = package

    for package in chosen.values():
        visit(package)
    return list(done.values())
