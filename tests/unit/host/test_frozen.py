"""Values without `dataclasses`: they behave like its frozen ones."""

from __future__ import annotations

from typing import Any

import pytest

from pybox.frozen import as_dict, defaults_of, frozen, is_frozen, names, replace


@frozen
class Port:
    """A value with a default."""

    number: int
    protocol: str = "tcp"


@frozen
class Rule:
    """A value of values, with a method."""

    port: Port
    others: tuple[Port, ...] = ()

    def __str__(self) -> str:
        return f"rule of {self.port.number}"


@frozen
class Range(Port):
    """Parts of its own behind those it has from `Port`."""

    last: int = 0

    def __repr__(self) -> str:
        return f"{self.number}-{self.last}"


@frozen
class Secure(Range):
    """Another default, and no new parts."""

    protocol: str = "tls"


class Step:
    """A class without parts that values extend."""

    def __repr__(self) -> str:
        return "a step"


@frozen
class Move(Step):
    """A value with a class above it that is none."""

    target: str
    args: tuple[str, ...] = ()


@frozen
class Nothing:
    """No parts."""


def test_parts_by_place_and_by_name() -> None:
    assert Port(1, "udp") == Port(number=1, protocol="udp") == Port(1, protocol="udp")
    assert Port(1).protocol == "tcp"
    assert Port(1) != Port(2)
    assert len({Port(1), Rule(Port(1))}) == 2
    assert Nothing() == Nothing()
    assert bool(Nothing())


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), {}),
        ((1, "tcp", 2), {}),
        ((1, "tcp"), {"number": 1}),
        ((1,), {"number": 1}),
        ((1,), {"colour": "red"}),
        ((), {"protocol": "x"}),
        ((), {"colour": "red", "protocol": "x"}),
    ],
)
def test_wrong_parts(args: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Port(*args, **named)


def test_a_value_does_not_change() -> None:
    value = Port(1)
    with pytest.raises(AttributeError):
        value.number = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del value.number
    assert replace(value, number=2) == Port(2)
    assert value == Port(1)
    with pytest.raises(TypeError):
        replace(value, colour="red")


def test_values_are_keys() -> None:
    assert {Port(1): "a", Port(1): "b"} == {Port(1): "b"}
    assert len({Rule(Port(1)), Rule(Port(1)), Rule(Port(2))}) == 2


def test_how_a_value_looks() -> None:
    assert repr(Port(1)) == "Port(number=1, protocol='tcp')"
    assert str(Rule(Port(7))) == "rule of 7"
    assert repr(Rule(Port(7))) == "Rule(port=Port(number=7, protocol='tcp'), others=())"


def test_a_value_is_matched_and_taken_apart() -> None:
    match Rule(Port(1), (Port(2),)):
        case Rule(Port(number, "tcp"), others):
            assert (number, others) == (1, (Port(2),))
        case _:
            raise AssertionError
    assert as_dict(Rule(Port(1), (Port(2, "udp"),))) == {
        "port": {"number": 1, "protocol": "tcp"},
        "others": ({"number": 2, "protocol": "udp"},),
    }


def test_a_value_extends_another() -> None:
    assert names(Range) == ("number", "protocol", "last")
    assert Range(1, "udp", 5) == Range(1, last=5, protocol="udp")
    assert Range(1) != Port(1)
    assert (Secure(1).protocol, Secure(1).last, Range(1).protocol) == ("tls", 0, "tcp")
    assert names(Secure) == names(Range)
    assert replace(Secure(1), last=2) == Secure(1, "tls", 2)
    assert hash(Range(1, "tcp", 5)) == hash(Range(1, last=5))
    match Range(1, "udp", 5):
        case Range(number, _, last):
            assert (number, last) == (1, 5)
    with pytest.raises(TypeError):
        Range(last=5)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Range(1).number = 2  # type: ignore[misc]


def test_methods_of_its_own_stay_and_those_above_do_not() -> None:
    assert repr(Range(1, last=5)) == "1-5"
    assert repr(Secure(1)) == "Secure(number=1, protocol='tls', last=0)"
    assert repr(Move("up")) == "Move(target='up', args=())"
    assert Move(target="up", args=("x",)) == Move("up", ("x",))


def test_what_is_known_of_a_class() -> None:
    assert is_frozen(Port)
    assert is_frozen(Port(1))
    assert not is_frozen(Step)
    assert not is_frozen(1)
    assert defaults_of(Range) == defaults_of(Range(1)) == {"protocol": "tcp", "last": 0}
    assert defaults_of(Nothing) == {}
