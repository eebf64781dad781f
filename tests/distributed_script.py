"""Run by torchrun on two processes (test_distributed.py): a training step under each wrapper is that of one process."""

import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
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


def main(wrapper, tolerance):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    x = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1))
    for network_type in NETWORKS:
        expected_loss, expected = train(build(network_type), x)
        model = build(network_type)
        loss, _ = train(globals()[wrapper](model), x[:, 2 * rank : 2 * rank + 2])
        dist.all_reduce(loss)
        torch.testing.assert_close(loss / 2, expected_loss, rtol=tolerance, atol=tolerance)
        for (name, ours), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
            if hasattr(ours, "full_tensor"):
                assert ours.to_local().numel() < theirs.numel() or ours.shape[0] == 1 or rank == 0, name
                ours = ours.full_tensor()
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
