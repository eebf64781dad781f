"""Arguments with a value for every step, laid out as a network's steps."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from vfrnn import VFRNN
from vfrnn.packed import Packed
from vfrnn.per_step import packed, padded

LENGTHS = torch.tensor([2, 4, 3])


@pytest.mark.parametrize("name", ["dt", "reset"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_table_is_laid_out_by_steps(name, batch_first):
    table = torch.arange(12.0).view(4, 3)
    given = table.mT if batch_first else table
    assert torch.equal(padded(name, given, 4, 3, batch_first=batch_first), table)
    words = r"\(B, T\) with T = 4, B = 3, got \(4, 3\)" if batch_first else r"\(T, B\) with T = 4, B = 3, got \(3, 4\)"
    with pytest.raises(ValueError, match=f"{name} must have shape .*{words}"):
        padded(name, given.mT, 4, 3, batch_first=batch_first)


def test_only_times_may_be_one_for_all_sequences():
    assert torch.equal(padded("dt", torch.ones(4), 4, 3, batch_first=False), torch.ones(4))
    with pytest.raises(ValueError, match=r"reset must have shape \(T, B\) with T = 4, B = 3, got \(4,\)"):
        padded("reset", torch.ones(4), 4, 3, batch_first=False)


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_table_is_packed_like_the_input(batch_first):
    """The batch comes in any order; the packed sequences lie from the longest to the shortest."""
    x = torch.zeros(3, 4, 1) if batch_first else torch.zeros(4, 3, 1)
    table = torch.arange(12).view(4, 3)
    given = table.mT if batch_first else table
    pack = lambda t: pack_padded_sequence(t, LENGTHS, batch_first, enforce_sorted=False)  # noqa: E731
    input = pack(x)
    sequences = Packed(input.batch_sizes, 3, input.data)
    for value in (given, pack(given)):
        found = packed("reset", value, input, sequences, batch_first=batch_first)
        assert torch.equal(found, pack(given).data)
    times = packed("dt", torch.arange(4.0), input, sequences, batch_first=batch_first)
    assert times.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("name", ["dt", "reset"])
def test_what_is_packed_otherwise(name):
    network, x = VFRNN(3, 5), torch.zeros(4, 3, 3)
    value = torch.ones(4, 3) if name == "dt" else torch.ones(4, 3, dtype=torch.bool)
    input = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    with pytest.raises(ValueError, match=rf"{name} must have shape \(rows,\) as packed data, like the input"):
        network(input, **{name: pack_padded_sequence(value, [4, 4, 4])})
    with pytest.raises(ValueError, match=f"{name} must be packed like the input, got other batch_sizes"):
        network(input, **{name: pack_padded_sequence(value, [3, 3, 3])})
    with pytest.raises(ValueError, match=f"{name} must be packed like the input, got its sequences in another order"):
        network(input, **{name: pack_padded_sequence(value, [4, 3, 2])})
    network(input, **{name: pack_padded_sequence(value, LENGTHS, enforce_sorted=False)})
