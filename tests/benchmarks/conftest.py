"""Benchmarks run small, as tests of agreement, unless --benchmark-enable asks for speed: then bars are asserted."""

import inference
import pytest
import ratios


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--speed-page", action="store_true", help="write results/speed.md at the end")


@pytest.fixture
def enabled(request: pytest.FixtureRequest) -> bool:
    """Whether speed is measured and bars are asserted."""
    return bool(request.config.getoption("benchmark_enable"))


def pytest_terminal_summary(terminalreporter) -> None:
    if ratios.TABLE:
        terminalreporter.section("speed")
        for case, what, value, bar in ratios.TABLE:
            terminalreporter.write_line(f"{case:<38}{what:<44}{value:>12.4g}   {bar}")
        if terminalreporter.config.getoption("--speed-page", False):
            ratios.PAGE.write_text(ratios.page(ratios.TABLE), encoding="utf-8")
    for text in inference.PRINTED:
        terminalreporter.section("inference")
        terminalreporter.write_line(text)
