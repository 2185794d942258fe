"""What all tests share: the folder of real data, and quiet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NO_DATA = "COH_REAL_DATA is not set to the folder of real data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked realdata are skipped, with the reason, where there is no real data."""
    if not os.environ.get("COH_REAL_DATA"):
        for item in items:
            if "realdata" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=NO_DATA))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; its tests are marked realdata."""
    folder = os.environ.get("COH_REAL_DATA")
    if not folder:
        pytest.skip(NO_DATA)
    return Path(folder).resolve()
