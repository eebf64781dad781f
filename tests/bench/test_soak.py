"""Memory of a long run of changing lengths."""

import pytest
from vfrnn_bench import soak


@pytest.mark.parametrize("layer", soak.LAYERS)
@pytest.mark.parametrize("sequence", [True, False])
def test_every_layer_runs(layer, sequence):
    row = soak.measure(layer, sequence, steps=12)
    assert (row["layer"], row["sequence"], row["steps"]) == (layer, sequence, 12)


@pytest.mark.slow
@pytest.mark.parametrize("layer", soak.LAYERS)
@pytest.mark.parametrize("sequence", [True, False])
def test_nothing_grows(layer, sequence):
    row = soak.in_a_process(layer, sequence, steps=4000)
    assert row["grown_mib"] <= row["target"], row
