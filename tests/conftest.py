"""What all tests share: the folder of real data, a browser, and no process group that outlives its test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.browser import Browser, started

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


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests of pages."""
    with started(tmp_path_factory.mktemp("browser")) as found:
        yield found


OF_RANKS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


@pytest.fixture(autouse=True)
def _no_process_group_is_left() -> Iterator[None]:
    """A run of several ranks in this process leaves its store listening, and its rank and port in the environment:
    processes of later tests would try to join it.
    """
    before = {name: os.environ.get(name) for name in OF_RANKS}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if "torch.distributed" in sys.modules:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
