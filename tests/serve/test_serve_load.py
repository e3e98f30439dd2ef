"""A server under load, in short; ``benchmarks/serve.py --load`` is the long form, with times.

Here nothing is timed, so that no test fails because a machine is slow: who waits for whom is
counted in steps and answers.
"""

import pytest
from _killed_server import kills
from _serve_load import disconnects, fairness, latency, soak
from _serving import Client, long_stream, make_shelf, serving, wait_until

from tests.forked import fork

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    made = make_shelf(tmp_path_factory.mktemp("shelf"), 40)
    assert len(set(made.answers.values())) > 35  # so that another adapter's answer is noticed
    return made


def test_answers_stay_right_while_adapters_come_and_go(shelf):
    found = soak(shelf, 2, streams=8, capacity=4, least=60)
    assert (found["wrong"], found["failed"], found["leases_left"]) == (0, 0, 0)
    for counted in (found["descriptors"], found["threads"]):
        assert counted[-1] - counted[0] <= 4, counted


def test_everybody_is_answered_where_few_places_are_asked_for_by_many(shelf):
    found = fairness(shelf, 1, clients=8)
    assert min(kind["answers"] for kind in found.values()) >= 2


def test_the_engine_says_the_same_with_and_without_http(shelf):
    assert set(latency(shelf, 0.2)) == {"engine", "http", "added"}


def test_nobody_waits_for_who_does_not_read(shelf):
    with serving(shelf, stalled=600.0, buffer=4096) as (service, port):
        connections = [long_stream(port, small=True) for _ in range(4)]
        wait_until(lambda: service.running == 4)
        client = Client(port)
        for _ in range(3):
            assert client.complete() == (200, shelf.answers["base"])
        wait_until(lambda: service.engine.statistics().requests == 2 * 4 + 3)
        assert client.complete() == (200, shelf.answers["base"])
        # They still have not read what was made for them; the last answer leaves a moment later.
        wait_until(lambda: service.running == 4)
        for connection in connections:
            connection.close()
        wait_until(lambda: service.running == 0)


def test_of_many_that_leave_nothing_stays(shelf):
    found = disconnects(shelf, 64)
    assert found["leases_left"] == 0
    assert found["cancelled"] > 48, found  # rather than answered to the end, for nobody


def test_a_kill_leaves_nothing_half(shelf, tmp_path):
    def begin(*arguments):
        process = fork(tmp_path, *arguments)
        return process, process.line("err")

    found = kills(shelf, 2, load=0.3, begin=begin)
    assert (found["wrong"], found["left"]) == (0, [])
    assert found["puts"] > 0
