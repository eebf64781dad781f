"""Training steps on long sequences, each in a process of its own."""

from vfrnn_bench import long_memory


def test_a_row_for_every_layer(monkeypatch):
    monkeypatch.setattr(long_memory, "in_fresh_process", lambda kind, T: {"bytes": 8.0 * T, "seconds": 0.1})
    rows = list(long_memory.long_memory((10, 20)))
    assert [row["provider"] for row in rows] == list(long_memory.KINDS)
    assert rows[0]["bytes"] == [80.0, 160.0]


def test_every_layer_is_measured():
    for kind in long_memory.KINDS:
        found = long_memory.measure(kind, 50)
        assert found["seconds"] > 0
        assert found["bytes"] >= 0
