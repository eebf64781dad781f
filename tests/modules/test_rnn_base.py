"""The methods and attributes of torch.nn.RNNBase on our networks."""

import pytest
import torch
from torch import nn

from tests.modules.test_network import NETWORKS, construct
from vfrnn import RNN


@pytest.mark.parametrize("network_type", NETWORKS)
def test_methods_of_torchs_networks(network_type):
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    network, peer = construct(network_type, 5, **options), nn.RNN(3, 5, **options)
    network.flatten_parameters()
    assert network.proj_size == peer.proj_size
    assert [len(weights) for weights in network.all_weights] == [len(network.weight_names[0])] * 4
    assert {id(w) for weights in network.all_weights for w in weights} == {
        id(p) for p in network.parameters(recurse=False)
    }
    x, h = torch.randn(2, 7, 3), torch.randn(4, 2, 5)
    for batch_sizes in (None, torch.tensor([2, 1])):
        given = x if batch_sizes is None else x[0, :3]
        assert network.get_expected_hidden_size(given, batch_sizes) == peer.get_expected_hidden_size(given, batch_sizes)
        network.check_forward_args(given, h, batch_sizes)
        with pytest.raises(RuntimeError, match=r"Expected hidden size \(4, 2, 5\), got \[4, 1, 5\]"):
            network.check_forward_args(given, h[:, :1], batch_sizes)
    for order in (None, torch.tensor([1, 0])):
        assert torch.equal(network.permute_hidden(h, order), peer.permute_hidden(h, order))
    with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
        construct(network_type, 5, proj_size=2)


def test_attributes_of_torchs_rnn():
    options = {"nonlinearity": "relu", "num_layers": 2, "bias": False, "dropout": 0.25, "bidirectional": True}
    ours, theirs = RNN(3, 5, **options), nn.RNN(3, 5, **options)
    names = [key for key in vars(theirs) if not key.startswith("_")]
    assert {"mode", "hidden_size", "dropout", "proj_size"} <= set(names)
    assert all(getattr(ours, key) == getattr(theirs, key) for key in names)
    assert [[w.shape for w in weights] for weights in ours.all_weights] == [
        [w.shape for w in weights] for weights in theirs.all_weights
    ]
