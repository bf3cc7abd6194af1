"""Values without `dataclasses`: they behave like its frozen ones."""

from __future__ import annotations

from typing import Any

import pytest

from pybox.frozen import as_dict, frozen, replace


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
    [((), {}), ((1, "tcp", 2), {}), ((1,), {"number": 1}), ((1,), {"colour": "red"}), ((), {"protocol": "x"})],
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
