"""A scenario played under thousands of seeded schedules of faults and interleavings.

Next: testing/simulation/schedule.py
"""

from nsqlite.testing.simulation.schedule import Schedule, schedules
from nsqlite.testing.simulation.simulation import Simulated, Simulation, simulate
from nsqlite.testing.simulation.story import SimulationFailed

__all__ = [
    "Schedule",
    "Simulated",
    "Simulation",
    "SimulationFailed",
    "schedules",
    "simulate",
]
