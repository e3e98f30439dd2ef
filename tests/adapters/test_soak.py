"""The soak, for seconds instead of a minute."""

import pytest
import soak


@pytest.mark.slow
def test_a_short_soak_gives_no_wrong_answer(monkeypatch):
    monkeypatch.setattr(soak, "ADAPTERS", 120)
    result = soak.soak(2.0, least=200)
    assert result["wrong"] == 0
    assert result["reloads"] > 0
    assert result["on_device_at_the_end"] <= soak.CAPACITY
    assert result["memory_mb"]["last"] < result["memory_mb"]["first"] + 40
