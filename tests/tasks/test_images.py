"""What images read pixel by pixel share: the permutation."""

import torch

from tests.tasks.cases import task_options
from vfrnn.tasks import Digits


def test_the_permutation_is_one_and_fixed():
    plain, _ = Digits(task_options()).evaluation_batch("test")
    permuted, _ = Digits(task_options(permute=True)).evaluation_batch("test")
    again, _ = Digits(task_options(permute=True)).evaluation_batch("test")
    assert torch.equal(permuted, again)
    assert not torch.equal(permuted, plain)
    assert torch.equal(permuted.sort(0).values, plain.sort(0).values)
