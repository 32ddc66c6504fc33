"""Compile the plant ahead of its first use: ``python -m planner.simulation.warm``.

A container image or a fresh checkout that has run it starts its simulations at once.
"""

from planner.model import Role
from planner.simulation.config import PlantConfig, PlantPool
from planner.simulation.plant import Plant
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.traces import make_trace


def warm() -> None:
    """Run the smallest plant once, so that numba's cache holds all of it."""
    config = PlantConfig((
        PlantPool("prefill", Role.PREFILL, PrefillTruth.constant(0.1)),
        PlantPool("decode", Role.DECODE, DecodeTruth.constant(0.01)),
    ))
    plant = Plant(config, make_trace("warm", [0.0], [10], [10]))
    plant.order("prefill", 0)
    plant.drain()


if __name__ == "__main__":
    warm()
