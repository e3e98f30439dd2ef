"""Who waits how long for a place on the device, in steps of the engine."""

import random

import pytest

from geodapt.adapters import Mix
from geodapt.serve.generation import EngineSettings, Generation, Sampling
from geodapt.serve.scheduler import Scheduler
from geodapt.serve.tickets import Ticket

ANSWER, STEP = 12, 0.02
"""Steps that an answer takes, and seconds of a step."""


class Clients:
    """So many clients that ask again as soon as they are answered, without any model."""

    def __init__(self, seed, clients, base_clients, adapters, capacity, slots=16):
        self.draw, self.now, self.steps = random.Random(seed), 0.0, 0
        self.base_clients, self.capacity = base_clients, capacity
        self.names = [f"n{number}" for number in range(adapters)]
        self.shares = [1 / rank for rank in range(1, adapters + 1)]  # Zipf's
        self.scheduler = Scheduler(EngineSettings(slots=slots), capacity, lambda: self.now)
        self.waits = {"base": [], "adapters": []}
        self.running, self.asked, self.most = {}, {}, 0
        for number in range(clients):
            self.ask(number)

    def ask(self, number):
        name = self.draw.choices(self.names, self.shares)[0]
        gate = None if number < self.base_clients else Mix({name: 1.0})
        ticket = Ticket(Generation((1, 2, 3), Sampling(ANSWER), gate))
        self.asked[ticket] = number, self.steps
        self.scheduler.add(ticket)

    def step(self):
        for ticket in self.scheduler.admit(list(self.running)):
            number, asked = self.asked[ticket]
            kind = "base" if number < self.base_clients else "adapters"
            self.waits[kind].append(self.steps - asked)
            self.running[ticket] = ANSWER
        held = {name for ticket in self.running for name in ticket.adapters}
        self.most = max(self.most, len(held))
        self.steps, self.now = self.steps + 1, self.now + STEP
        for ticket in list(self.running):
            self.running[ticket] -= 1
            if not self.running[ticket]:
                del self.running[ticket]
                self.ask(self.asked.pop(ticket)[0])


@pytest.mark.parametrize("seed", range(3))
def test_rare_adapters_wait_little_longer_and_the_base_never(seed):
    clients = Clients(seed, clients=12, base_clients=2, adapters=65, capacity=4)
    for _ in range(3000):
        clients.step()
    assert clients.most == clients.capacity
    firsts = sorted(wait + 1 for wait in clients.waits["adapters"])  # the first token's step
    assert len(firsts) > 500
    assert firsts[int(0.99 * len(firsts))] <= 5 * firsts[len(firsts) // 2]
    overtaken = 2.0 / STEP  # after so long nobody else comes first
    assert firsts[-1] <= overtaken + 3 * ANSWER
    assert set(clients.waits["base"]) == {0}
