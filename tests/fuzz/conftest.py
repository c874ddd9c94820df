"""How many cases were tried, at the end of a run of fuzzers alone."""

from tests.fuzz import TRIED


def pytest_terminal_summary(terminalreporter, config):
    """One line; a run of other tests beside the fuzzers has lines enough."""
    if TRIED and all("fuzz" in str(argument) for argument in config.args):
        said = ", ".join(f"{count:,} {kind}" for kind, count in sorted(TRIED.items()))
        terminalreporter.write_line(f"fuzzed: {said}")
