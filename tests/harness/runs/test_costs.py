"""What units cost and when a plan would be done."""

from __future__ import annotations

import pytest

from harness.runs.costs import Cost, Speed, makespan
from harness.runs.units import Unit

TASK = "harness.experiments._shared.given_texts:keep_texts"


def unit(name: str, *needs: Unit) -> Unit:
    return Unit(TASK, name, {"name": name}, needs)


def test_costs_add_and_become_seconds() -> None:
    whole = Cost(10, 100, 1000, 5.0) + Cost(seconds=1.0, read=24)
    assert whole == Cost(10, 100, 1024, 6.0)
    assert Speed(0.1, 0.01, 0.001, core=2.0).seconds(whole) == pytest.approx(1 + 1 + 1.024 + 12)


def test_a_speed_is_said_in_tokens_a_second() -> None:
    assert Speed(0.1, 0.01, 0.002).said("m", 10) == "m writes 50 tokens a second, 10 texts together, and reads 500"


def test_units_wait_for_workers_and_for_what_they_need() -> None:
    first, second = unit("first"), unit("second")
    third = unit("third", first, second)
    fourth = unit("fourth", third)
    plan = [first, second, third, fourth]
    seconds = {one.key: value for one, value in zip(plan, (3.0, 5.0, 2.0, 1.0), strict=True)}
    assert makespan(plan, seconds, 1) == pytest.approx(11.0)
    assert makespan(plan, seconds, 2) == pytest.approx(8.0)
    assert makespan(plan, seconds, 9) == pytest.approx(8.0)


def test_what_is_stored_takes_no_time() -> None:
    first = unit("first")
    second, third = unit("second", first), unit("third", first)
    seconds = {second.key: 2.0, third.key: 4.0}
    assert makespan([first, second, third], seconds, 2) == pytest.approx(4.0)
    assert makespan([first, second, third], {}, 2) == 0.0


def test_the_order_of_the_plan_decides_who_starts() -> None:
    units = [unit(str(number)) for number in range(3)]
    seconds = {one.key: value for one, value in zip(units, (1.0, 1.0, 10.0), strict=True)}
    assert makespan(units, seconds, 2) == pytest.approx(11.0)
    assert makespan(units[::-1], seconds, 2) == pytest.approx(10.0)
