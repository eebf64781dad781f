"""expRNN's setting in geotorch is an orthogonal matrix and a modReLU, whatever form the sequences have."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vfrnn.tasks.exprnn import ExpRNN

pytest.importorskip("geotorch", reason="geotorch is not installed")


@pytest.mark.parametrize("init", ["henaff", "cayley", "zero"])
def test_steps_are_those_of_the_paper(init):
    layer, x, h = ExpRNN(3, 7, init), torch.randn(4, 2, 3), torch.randn(1, 2, 7)
    Q = layer.recurrent.weight.detach()
    torch.testing.assert_close(Q @ Q.mT, torch.eye(7), rtol=0, atol=1e-5)
    states, last = layer(x, h)
    expected = h[0]
    for x_t, found in zip(x, states, strict=True):
        z = x_t @ layer.input.weight.mT + expected @ Q.mT
        expected = z.sign() * (z.abs() + layer.beta).relu()
        torch.testing.assert_close(found, expected)
    assert torch.equal(last[0], states[-1])


def test_packed_sequences_end_where_they_end():
    layer, x, lengths = ExpRNN(3, 7, "henaff"), torch.randn(5, 3, 3), torch.tensor([2, 5, 3])
    packed, last = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
    for k, length in enumerate(lengths):
        states, alone = layer(x[:length, k : k + 1])
        torch.testing.assert_close(last[:, k], alone[:, 0])
        torch.testing.assert_close(pad_packed_sequence(packed)[0][:length, k], states[:, 0])
