"""Learns an unknown rotation from examples: a linear layer that stays orthogonal, its base moved every 10 steps."""

import torch

from vfrnn.parametrizations import orthogonal, rebase

N, STEPS, EVERY = 8, 100, 10


def main() -> None:
    torch.manual_seed(0)
    target = torch.linalg.qr(torch.randn(N, N)).Q
    target[:, 0] *= torch.linalg.det(target).sign()  # a rotation, no reflection

    layer = orthogonal(torch.nn.Linear(N, N, bias=False))
    layer.weight = torch.eye(N)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for step in range(STEPS):
        x = torch.randn(64, N)
        loss = (layer(x) - x @ target.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % EVERY == 0:
            rebase(layer)
        if step % 25 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    W = layer.weight.detach()
    print(f"distance to the rotation: {torch.dist(W, target).item():.1e}")
    print(f"W^T W differs from I by {(W.T @ W - torch.eye(N)).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
