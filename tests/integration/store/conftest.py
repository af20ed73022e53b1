"""A desk for each test of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.desk import Desk, desk_at
from support.servers import StoreServer


@pytest.fixture
def desk(clean_server: StoreServer) -> Iterator[Desk]:
    with desk_at(clean_server) as made:
        yield made
