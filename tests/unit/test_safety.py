"""Which store configurations are refused, warned about, or fine."""

from __future__ import annotations

import pytest

from taskmaster.store.safety import PARAMETERS, judge

SOUND = {"maxmemory": "0", "maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}


def levels(config: dict[str, str] | None) -> dict[str, str]:
    return {finding.rule: finding.level for finding in judge(config)}


def test_a_sound_configuration_passes_every_rule() -> None:
    assert levels(SOUND) == {"eviction": "ok", "persistence": "ok", "fsync": "ok"}
    assert set(SOUND) == set(PARAMETERS)


@pytest.mark.parametrize(
    "policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"]
)
def test_every_evicting_policy_is_refused_with_the_cure(policy: str) -> None:
    """Any policy but noeviction deletes jobs when memory is full."""
    finding = judge({**SOUND, "maxmemory-policy": policy})[0]

    assert finding.level == "refuse"
    assert policy in finding.observed
    assert "CONFIG SET maxmemory-policy noeviction" in finding.message


@pytest.mark.parametrize(
    ("parameter", "value", "rule", "cure"),
    [
        ("appendonly", "no", "persistence", "CONFIG SET appendonly yes"),
        ("appendfsync", "no", "fsync", "CONFIG SET appendfsync everysec"),
    ],
)
def test_weak_persistence_is_a_warning_with_the_cure(parameter: str, value: str, rule: str, cure: str) -> None:
    [finding] = [finding for finding in judge({**SOUND, parameter: value}) if finding.rule == rule]

    assert finding.level == "warn"
    assert cure in finding.message


def test_fsync_always_is_fine() -> None:
    assert levels({**SOUND, "appendfsync": "always"})["fsync"] == "ok"


@pytest.mark.parametrize("config", [None, {}])
def test_a_server_that_hides_its_configuration_is_reported_not_refused(config: dict[str, str] | None) -> None:
    [finding] = judge(config)

    assert (finding.rule, finding.level) == ("readable", "info")


def test_parameters_that_are_not_shown_are_not_guessed() -> None:
    assert levels({"maxmemory": "0"}) == {"eviction": "info", "persistence": "info", "fsync": "info"}
