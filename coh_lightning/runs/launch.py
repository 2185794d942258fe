"""The processes that torchrun has started, against the configuration's devices and nodes."""

from __future__ import annotations

import os
from typing import Any

from lightning.fabric.plugins.environments import TorchElasticEnvironment

from coh_lightning.errors import InputError, counted


def as_launched(devices: Any, nodes: int) -> tuple[Any, int]:
    """trainer.devices and trainer.num_nodes, where under torchrun `auto` is what it started.

    Raises:
        InputError: torchrun has started another number of processes.
    """
    if not TorchElasticEnvironment.detect():
        return devices, nodes
    every, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    machines = every // here
    text, configured = str(devices), here
    if text in ("auto", "-1"):
        devices = here
    elif isinstance(devices, (list, tuple)):
        configured = len(devices)
    elif "," in text:
        configured = sum(bool(part.strip()) for part in text.split(","))
    elif text.isdecimal():
        configured = int(text)
    if nodes == 1 and configured == here:
        nodes = machines
    if (configured, nodes) != (here, machines):
        started = f"{counted(here, 'process', 'processes')} on each of {counted(machines, 'machine')}"
        raise InputError(
            f"torchrun has started {started}, but trainer.devices is "
            f"{devices} and trainer.num_nodes {nodes}; leave both out, or set them to {here} and {machines}."
        )
    return devices, nodes
