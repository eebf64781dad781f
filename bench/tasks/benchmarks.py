"""The registry of learning benchmarks: our hyper-parameters beside the published ones, and the published figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MODELS = ("vfrnn", "orthogonal", "torch-orthogonal", "lstm")


@dataclass(frozen=True)
class Benchmark:
    """A run of `vfrnn train` per seed, every model on the same batches.

    Attributes:
        task: of vfrnn.tasks.
        train: options of `vfrnn train` that differ from the task's defaults.
        published: figures of the literature with their hyper-parameters and source, to be read beside ours: other
            sizes, epochs and machines.
        models: what is trained.
    """

    name: str
    what: str
    task: str
    train: dict[str, Any] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    models: tuple[str, ...] = MODELS


_EXPRNN = "Lezcano-Casado and Martinez-Rubio 2019 (arXiv 1901.08428)"
_SCORNN = "Helfrich, Willmott and Ye 2018 (arXiv 1707.09520)"
_COPYING = (
    f"expRNN (n 190, batch 128, RMSprop, Henaff initialisation) reaches a cross entropy of 0 at delays 1000 and 2000; "
    f"an LSTM stays at the score of a model without memory. {_EXPRNN}, Figure 1.",
)

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "copying-1000",
            "Copying memory, delay 1000: recall 10 symbols (Arjovsky, Shah, Bengio 2016).",
            "copying",
            {"delay": 1000, "batch_size": 32, "epochs": 12},
            _COPYING,
        ),
        Benchmark(
            "copying-2000",
            "Copying memory, delay 2000.",
            "copying",
            {"delay": 2000, "batch_size": 32, "epochs": 24},
            _COPYING,
        ),
        Benchmark(
            "adding-400",
            "Adding, length 400: the sum of two marked numbers (Hochreiter and Schmidhuber 1997).",
            "adding",
            {"length": 400},
            (f"scoRNN (n 170) and LSTM (n 60): mean squared error near 0 at lengths 200, 400, 750. {_SCORNN}.",),
        ),
        Benchmark(
            "denoise",
            "Copying that needs forgetting: recall 10 symbols scattered in 50 steps of noise (Jing et al. 2017).",
            "denoise",
            {"delay": 50, "epochs": 40},
            models=("vfrnn", "orthogonal", "lstm"),
        ),
        Benchmark(
            "co2",
            "Mauna Loa's weekly carbon dioxide, 24 of 104 weeks kept at random: a value up to half a year later.",
            "co2",
            models=("vfrnn", "orthogonal", "lstm", "gru"),
        ),
        Benchmark("digits", "scikit-learn's 8 x 8 digits, a pixel a step.", "digits"),
        Benchmark(
            "permuted-digits", "The digits, their pixels in one fixed random order.", "digits", {"permute": True}
        ),
        Benchmark(
            "mnist",
            "Pixel-by-pixel MNIST, 784 steps: 5000 images unless --data names the full set.",
            "mnist",
            {},
            (f"Full set: expRNN 98.0 %, 98.4 %, 98.7 % (n 170, 360, 512); LSTM 91.9 % (n 512). {_EXPRNN}, Table 1.",),
        ),
        Benchmark(
            "permuted-mnist",
            "Pixel-by-pixel MNIST, the pixels in one fixed random order.",
            "mnist",
            {"permute": True},
            (f"Full set: expRNN 94.9 %, 96.2 %, 96.6 % (n 170, 360, 512); LSTM 91.8 % (n 512). {_EXPRNN}, Table 1.",),
        ),
    )
}
