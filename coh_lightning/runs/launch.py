"""The processes that torchrun has started, against the configuration's devices and nodes."""

from __future__ import annotations

import os
from typing import Any

from lightning.fabric.plugins.environments import TorchElasticEnvironment

from coh_lightning.errors import InputError


def as_launched(devices: Any, nodes: int) -> tuple[Any, int]:
    """trainer.devices and trainer.num_nodes under torchrun: `auto` is what torchrun started. Without torchrun they are
    given back unchanged.

    Raises:
        InputError: the configuration asks for another number of processes than torchrun started.
    """
    if not TorchElasticEnvironment.detect():
        return devices, nodes
    every, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    machines = every // here
    if str(devices) in ("auto", "-1"):
        devices, asked = here, here
    elif isinstance(devices, (list, tuple)):
        asked = len(devices)
    else:
        text = str(devices)
        asked = (
            len([part for part in text.split(",") if part.strip()])
            if "," in text
            else int(text)
            if text.isdecimal()
            else here
        )
    if nodes == 1 and machines > 1 and asked == here:
        nodes = machines
    if (asked, nodes) != (here, machines):
        raise InputError(
            f"torchrun has started {here} processes on each of {machines} machine{'s' * (machines > 1)}, and "
            f"trainer.devices is {devices}, trainer.num_nodes {nodes}; leave both out, or set them to {here} and "
            f"{machines}."
        )
    return devices, nodes
