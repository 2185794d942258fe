"""What torchrun has started is what is trained on."""

from __future__ import annotations

from typing import Any

import pytest

from coh_lightning.errors import InputError
from coh_lightning.runs.launch import as_launched


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a process of two on each of two machines."""
    for name, value in {
        "TORCHELASTIC_RUN_ID": "a",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("devices", ["auto", -1, "-1", 2, "2", [0, 1], "0,1"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_auto_devices_and_nodes_are_those_of_torchrun(devices: Any, nodes: int, torchrun: pytest.MonkeyPatch) -> None:
    expected = 2 if devices in ("auto", -1, "-1") else devices
    assert as_launched(devices, nodes) == (expected, 2)


@pytest.mark.parametrize(("devices", "nodes"), [(3, 2), ("4", 1), ([0], 2), (2, 3), ("auto", 4)])
def test_a_process_count_that_differs_from_torchruns_is_refused(
    devices: Any, nodes: int, torchrun: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"torchrun has started 2 processes on each of 2 machines.*set them to 2 and 2\."
    ):
        as_launched(devices, nodes)


def test_without_torchrun_devices_and_nodes_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert as_launched("auto", 1) == ("auto", 1) and as_launched(3, 2) == (3, 2)
