"""Takes a model with a torch.nn.RNN, swaps the layer for ours with equal outputs, then for an orthogonal one."""

import torch

import vfrnn


class Tagger(torch.nn.Module):
    """Words in, a tag for every word out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(100, 16)
        self.rnn = torch.nn.RNN(16, 32, num_layers=2, batch_first=True, bidirectional=True)
        self.tags = torch.nn.Linear(64, 5)

    def forward(self, sentence: torch.Tensor) -> torch.Tensor:
        return self.tags(self.rnn(self.words(sentence))[0])


def main() -> None:
    torch.manual_seed(0)
    model, sentences = Tagger(), torch.randint(100, (8, 20))
    before = model(sentences)

    print(vfrnn.convert(model))
    difference = (model(sentences) - before).abs().max().item()
    print(f"largest difference of the outputs: {difference:.1e}")

    model = Tagger()
    print(vfrnn.convert(model, to="orthogonal"))
    M = model.rnn.step_matrix(layer=1, reverse=True).detach()
    print(f"M^T M differs from I by {(M.T @ M - torch.eye(32)).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
