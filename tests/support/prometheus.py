"""Metrics as a scraper reads them, and Debian's tools of Prometheus."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Samples", "free_port", "promtool", "samples_of", "scrape"]

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def samples_of(text: str) -> Samples:
    """Values by sample name and sorted labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def scrape(url: str) -> Samples:
    """What the endpoint says now."""
    answer = httpx.get(url, timeout=10)
    assert answer.status_code == 200, answer.text
    return samples_of(answer.text)


def free_port() -> int:
    """One that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def promtool(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run it; where there is none the test is skipped."""
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool here: `apt-get install prometheus` brings it")
    return subprocess.run(["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60, check=False)
