"""Run by torchrun on two processes (test_distributed.py): a training step under each wrapper is that of one process."""

import os

import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import vfrnn

NETWORKS = (vfrnn.RNN, vfrnn.VFRNN, vfrnn.OrthogonalRNN)


class Model(torch.nn.Module):
    def __init__(self, network_type):
        super().__init__()
        self.network = network_type(3, 5, 2, bidirectional=True)
        self.readout = torch.nn.Linear(10, 1)

    def forward(self, x):
        return self.readout(self.network(x)[0])


def build(network_type):
    torch.manual_seed(0)
    return Model(network_type)


def data_parallel(model):
    return DistributedDataParallel(model)


def sharded(model):
    fully_shard(model.network)
    return fully_shard(model)


def sharded_in_bfloat16(model):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    fully_shard(model.network, mp_policy=policy)
    return fully_shard(model, mp_policy=policy)


def train(model, x):
    """The loss and the parameters after two steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(x).float().square().mean()
        loss.backward()
        optimizer.step()
    return loss.detach(), model


def check(wrap, tolerance, network_type):
    rank = dist.get_rank()
    x = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1))
    expected_loss, expected = train(build(network_type), x)
    model = build(network_type)
    loss, _ = train(wrap(model), x[:, 2 * rank : 2 * rank + 2])
    dist.all_reduce(loss)
    torch.testing.assert_close(loss / 2, expected_loss, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        if isinstance(ours, DTensor):
            assert sum(shard_sizes(ours)) == theirs.numel()
            ours = ours.full_tensor()
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def shard_sizes(parameter):
    """Numbers of elements that the two processes hold."""
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(2)]
    dist.all_gather(sizes, torch.tensor([parameter.to_local().numel()]))
    return [int(size) for size in sizes]


def main():
    dist.init_process_group("gloo")
    # Half batches round sums differently; bfloat16 keeps 8 bits.
    for wrap, tolerance in ((data_parallel, 1e-5), (sharded, 1e-5), (sharded_in_bfloat16, 3e-2)):
        for network_type in NETWORKS:
            check(wrap, tolerance, network_type)
    dist.barrier()
    dist.destroy_process_group()
    # At exit PyTorch now and then aborts where it ends gloo's threads ("terminate called without an active exception").
    os._exit(0)


if __name__ == "__main__":
    main()
