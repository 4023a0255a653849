"""An encrypted database that is followed for the first time while its store does not answer, or answers late."""

from __future__ import annotations

import os
import random

import pytest

from tests.simulation.turns import Turns, WorldClock
from tests.simulation.weather import Weather, in_weather
from tests.simulation.workload import BEGINS, SETTINGS, key_source
from tests.simulation.world import World


@pytest.mark.parametrize("slow", [0.0, 12.0])
def test_a_first_start_waits_for_the_ring(scratch: str, slow: float) -> None:
    """What is captured meanwhile is shipped once there is a ring to seal it with; *slow*: it answers, but later than
    a first start waits for it."""
    clock = WorldClock(wall=BEGINS)
    turns = Turns(clock)
    weather = Weather(random.Random(0), turns, away=not slow, slow=slow)
    root = os.path.join(scratch, "world")
    os.makedirs(root)
    world = World(root, clock=clock, turns=turns, source=key_source(sealed=True), **SETTINGS)
    with in_weather(lambda _: weather), world.entered():
        app = world.application()
        app.create(5)
        world.start()
        world.run(60)
        app.write()
        world.run(60)
        world.require_well()
        weather.away, weather.slow = False, 0.0
        world.settle(3600)
        world.stop()
        app.close()
