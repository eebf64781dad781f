"""Remembers a symbol for 100 steps: an orthogonal RNN, whose generator learns at a rate of its own."""

import torch

import vfrnn

SYMBOLS, DELAY, STEPS = 4, 100, 60


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences (DELAY, size, SYMBOLS) with a symbol at the first step and then nothing, and the symbols (size,)."""
    symbol = torch.randint(SYMBOLS, (size,))
    x = torch.zeros(DELAY, size, SYMBOLS)
    x[0] = torch.nn.functional.one_hot(symbol, SYMBOLS)
    return x, symbol


def main() -> None:
    torch.manual_seed(0)
    rnn, readout = vfrnn.OrthogonalRNN(SYMBOLS, 32), torch.nn.Linear(32, SYMBOLS)
    model = torch.nn.ModuleList([rnn, readout])
    optimizer = torch.optim.Adam(vfrnn.param_groups(model, lr=1e-2, generator_lr=1e-3))
    for step in range(STEPS):
        x, symbol = batch(32)
        _, last = rnn(x)
        loss = torch.nn.functional.cross_entropy(readout(last[0]), symbol)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    x, symbol = batch(1000)
    with torch.no_grad():
        wrong = readout(rnn(x)[1][0]).argmax(-1) != symbol
    print(f"forgotten after {DELAY} steps: {100 * wrong.float().mean().item():.1f} %")


if __name__ == "__main__":
    main()
