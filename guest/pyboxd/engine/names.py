"""Names that containers get when nobody gave them one, and the rule for those that people give. Pure but for chance."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from pyboxd.errors import Conflict, InvalidArgument

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ADJECTIVES = (
    "able amber bold brave bright brisk calm candid clear clever cosy crisp daring deft eager earnest fair fearless "
    "fluent fond frank gentle glad golden grand happy hardy honest humble jolly keen kind lively loyal lucid merry "
    "mild modest neat nimble noble patient placid plucky polite proud quick quiet ready serene sharp silent simple "
    "sincere smart steady sunny swift tender tidy trusty upbeat vivid warm wise witty zesty"
)
_SURNAMES = (
    "abel ampere archimedes bell bernoulli bohr boole brahe cantor carson cauchy celsius copernicus curie darwin "
    "dijkstra dirac edison einstein euclid euler faraday fermat fermi fibonacci franklin galileo galois gauss germain "
    "goodall hamilton hertz hilbert hopper hypatia johnson kepler klein knuth kovalevskaya lagrange laplace leibniz "
    "linnaeus lovelace maxwell mendel mirzakhani newton nobel noether ohm pascal pasteur planck poincare ptolemy "
    "ramanujan riemann shannon sinoussi tesla thompson turing volta watt wiles wozniak yonath"
)


def check(name: str) -> str:
    """The name without its leading "/". InvalidArgument in Docker's words."""
    bare = name.removeprefix("/")
    if not NAME.fullmatch(bare):
        raise InvalidArgument(f"Invalid container name ({name}), only {NAME.pattern[:-1]} are allowed")
    return bare


def invent(taken: Callable[[str], bool]) -> str:
    """An `adjective_surname` that is not taken; a number is added when chance alone does not find one."""
    for attempt in range(20):
        name = f"{secrets.choice(_ADJECTIVES.split())}_{secrets.choice(_SURNAMES.split())}"
        if attempt > 5:
            name += str(secrets.randbelow(10 ** (attempt - 4)))
        if not taken(name):
            return name
    raise Conflict("no free container name was found")
