"""The exporter's settings that fit a sandbox, as TOML: with them a run gets no 429 and has no needless waits."""

from asyncexport.sandbox.behaviour import SandboxBehaviour

DIRECTORY = "sandbox-exports"
"""The directory of the archives. Not the default one, which may hold real data: nothing marks these rows as made up."""

SHORTEST_INTERVAL_SECONDS = 0.05
"""Minimum time between two polls: polling more often would only use CPU."""

SHORTEST_EXPECTED_SECONDS = 0.01
SHORTEST_BACKOFF_SECONDS = 0.05
SHORTEST_BACKOFF_MAX_SECONDS = 1.0
SHORTEST_OUTAGE_SECONDS = 60.0


def settings(behaviour: SandboxBehaviour, *, url: str, key: str) -> str:
    """Return the tables of a configuration file with the settings that must differ from their defaults."""
    expected = max(behaviour.shortened(behaviour.operation_seconds), SHORTEST_EXPECTED_SECONDS)
    deadline = max(behaviour.shortened(86_400.0), 60.0, 100 * expected)
    at_least = {
        "min_interval": max(behaviour.shortened(10.0), SHORTEST_INTERVAL_SECONDS),
        "expected": expected,
        "operation_deadline": deadline,
        "backoff_initial": max(behaviour.shortened(1.0), SHORTEST_BACKOFF_SECONDS),
        "backoff_max": max(behaviour.shortened(300.0), SHORTEST_BACKOFF_MAX_SECONDS),
        "outage": max(behaviour.shortened(6 * 3600.0), SHORTEST_OUTAGE_SECONDS),
    }
    shown = {name: f'"{_toml_number(round(seconds, 3))}s"' for name, seconds in at_least.items()}
    return f"""\
# Settings that fit this sandbox. Save them to a file and pass it with -c.
# Put the sandbox's key into the environment: export FULLSTORY_API_KEY='{key}'

[api]
base_url = "{url}"

[output]
directory = "{DIRECTORY}"

[budget]
requests_per_minute = {_toml_number(behaviour.requests_per_minute * behaviour.speed)}
burst = {behaviour.burst}
scope = "{behaviour.scope}"

[polling]
min_interval = {shown["min_interval"]}
expected = {shown["expected"]}
operation_deadline = {shown["operation_deadline"]}

[retry]
backoff_initial = {shown["backoff_initial"]}
backoff_max = {shown["backoff_max"]}
outage = {shown["outage"]}
"""


def _toml_number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
