"""Memory of a long run of changing lengths; `make soak` judges whether it grows."""

import pytest
from vfrnn_bench import soak


@pytest.mark.parametrize("layer", soak.LAYERS)
@pytest.mark.parametrize("sequence", [True, False])
def test_every_layer_runs(layer, sequence):
    row = soak.measure(layer, sequence, steps=12)
    assert (row["layer"], row["sequence"], row["steps"]) == (layer, sequence, 12)
