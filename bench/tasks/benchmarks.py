"""The registry of learning benchmarks: what differs from the defaults of `vfrnn train`, and the published figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Trained on every benchmark.
MODELS = ("vfrnn", "orthogonal", "torch-orthogonal", "geotorch", "identity-rnn", "lstm", "gru")


@dataclass(frozen=True)
class Published:
    """A figure of the literature, to be read beside ours: other sizes, epochs and machines.

    Attributes:
        model: as its paper calls it.
        size: units, and parameters where they are given.
        result: in the metric of the benchmark, or in words.
        source: where it is printed.
    """

    model: str
    size: str
    result: str
    source: str


@dataclass(frozen=True)
class Benchmark:
    """A task on which every model is trained by the protocol of vfrnn_bench.tasks.protocol.

    Attributes:
        task: of vfrnn.tasks.
        train: options of `vfrnn train` that differ from the task's defaults, the same for all models.
        published: figures of the literature.
        models: what is trained.
        absent: who of MODELS is not, and why.
        lrs: the rates of the grid, three at most, the same for all models.
        archive: of the task "series", the data set in aeon that `vfrnn train --data` reads.
    """

    name: str
    what: str
    task: str
    train: dict[str, Any] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    models: tuple[str, ...] = MODELS
    absent: dict[str, str] = field(default_factory=dict)
    lrs: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    archive: str | None = None


_EXPRNN = "Lezcano-Casado and Martinez-Rubio 2019 (arXiv 1901.08428)"
_SCORNN = "Helfrich, Willmott and Ye 2018 (arXiv 1707.09520)"
_DTRIV = "Lezcano-Casado 2019 (arXiv 1909.09501)"
_ANTISYMMETRIC = "Chang, Chen, Haber and Chi 2019 (arXiv 1902.09689)"
_CORNN = "Rusch and Mishra 2021 (arXiv 2010.00951)"
_LIPSCHITZ = "Erichson, Azencot, Queiruga, Hodgkinson and Mahoney 2021 (arXiv 2006.12070)"
_LEM = "Rusch, Mishra, Erichson and Mahoney 2022 (arXiv 2110.04744)"
_AEON = "aeon 1.6, testing/example_results_files/classification/accuracy, on the archive's split"
_COPYING = (
    Published("expRNN", "190 units", "cross entropy 0 at delays 1000 and 2000 (batch 128, RMSprop)", _EXPRNN),
    Published("LSTM", "", "the score of a model without memory", _EXPRNN),
)
#: Half the updates and twice the batch of `vfrnn train`: a benchmark is 36 runs.
_DIGITS = {"batch_size": 32, "epochs": 30}
#: Of the benchmarks of which all runs are to be done in minutes.
_TWO_RATES = (3e-3, 1e-2)


def _series(archive: str, what: str, train: dict[str, Any], published: dict[str, str]) -> Benchmark:
    """With the archive's test split; a share of the training split, drawn by the seed, is for validation."""
    rows = tuple(Published(model, "", result, _AEON) for model, result in published.items())
    return Benchmark(archive, what, "series", train, rows, lrs=_TWO_RATES, archive=archive)


def _mnist(permuted: bool) -> tuple[Published, ...]:
    """Test accuracy on the full set."""
    rows = (
        ("LSTM", "512 units", "91.9 %", "91.8 %", _EXPRNN),
        ("scoRNN", "170 units, 16k parameters", "97.2 %", "94.8 %", _EXPRNN),
        ("scoRNN", "360 units, 69k parameters", "98.1 %", "95.9 %", _EXPRNN),
        ("scoRNN", "512 units, 137k parameters", "98.2 %", "96.5 %", _EXPRNN),
        ("expRNN", "170 units, 16k parameters", "98.0 %", "94.9 %", _EXPRNN),
        ("expRNN", "360 units, 69k parameters", "98.4 %", "96.2 %", _EXPRNN),
        ("expRNN", "512 units, 137k parameters", "98.7 %", "96.6 %", _EXPRNN),
        ("dtriv, infinity", "170 units, 16k parameters", "", "95.0 %", _DTRIV),
        ("dtriv, infinity", "512 units, 137k parameters", "", "96.8 %", _DTRIV),
        ("AntisymmetricRNN", "128 units, 10k parameters", "98.0 %", "95.8 %", _ANTISYMMETRIC),
        ("coRNN", "128 units, 34k parameters", "99.3 %", "96.6 %", _CORNN),
        ("Lipschitz RNN", "128 units, 34k parameters", "99.4 %", "96.3 %", _LIPSCHITZ),
        ("LEM", "128 units, 68k parameters", "99.5 %", "96.6 %", _LEM),
    )
    chosen = ((model, size, after if permuted else plain, source) for model, size, plain, after, source in rows)
    return tuple(Published(*row) for row in chosen if row[2])


def _transport(wind: str, what: str) -> Benchmark:
    """The rates are higher: a field of a few hundred numbers starts at 0 and has to move whole frames in 300 steps.

    They are ten times apart: so far lie those that suit a field and those that suit a dense matrix. There are two and
    not three, to save time; VFRNN alone was tried in between, at 1e-2, and validated no better than at 3e-2.
    """
    return Benchmark(
        f"transport-{wind}",
        f"Blobs carried by {what} wind on 16 x 16 nodes, 10 frames to be continued from the first.",
        "transport",
        {"wind": wind},
        models=("vfrnn", "orthogonal", "torch-orthogonal", "geotorch", "rnn", "lstm", "gru"),
        absent={
            "identity-rnn": "a rectifier takes the sign of the frames, and torch.nn.RNN has no other activation that "
            "keeps them: vfrnn.RNN without activation, started at the identity, stands for it"
        },
        lrs=(3e-3, 3e-2),
    )


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        _transport("compressible", "a compressible"),
        _transport("incompressible", "an incompressible"),
        Benchmark(
            "copying-1000",
            "Copying memory, delay 1000: recall 10 symbols (Arjovsky, Shah, Bengio 2016).",
            "copying",
            {"delay": 1000, "batch_size": 32, "epochs": 12},
            _COPYING,
            lrs=(1e-3, 3e-3),
        ),
        Benchmark(
            "copying-2000",
            "Copying memory, delay 2000.",
            "copying",
            {"delay": 2000, "batch_size": 32, "epochs": 24},
            _COPYING,
        ),
        Benchmark(
            "adding-200",
            "Adding, length 200: the sum of two marked numbers (Hochreiter and Schmidhuber 1997).",
            "adding",
            {"length": 200, "batch_size": 32, "epochs": 30},
            (
                Published("scoRNN", "170 units", "mean squared error near 0 at lengths 200, 400, 750", _SCORNN),
                Published("LSTM", "60 units", "mean squared error near 0 at lengths 200, 400, 750", _SCORNN),
            ),
            lrs=_TWO_RATES,
        ),
        Benchmark(
            "denoise",
            "Copying that needs forgetting: recall 10 symbols scattered in 50 steps of noise (Jing et al. 2017).",
            "denoise",
            {"delay": 50, "epochs": 40},
            lrs=_TWO_RATES,
        ),
        Benchmark(
            "co2",
            "Mauna Loa's weekly carbon dioxide, 24 of 104 weeks kept at random: a value up to half a year later.",
            "co2",
            {"epochs": 40},
            lrs=_TWO_RATES,
        ),
        _series(
            "JapaneseVowels",
            "Nine speakers by two vowels, 12 channels of 7 to 29 steps (UEA archive).",
            {"batch_size": 16, "epochs": 60},
            {},
        ),
        _series(
            "OSULeaf",
            "Six species by the outline of a leaf, 427 steps (UCR archive).",
            {"batch_size": 16, "epochs": 60},
            {"HC2": "96.7 %", "InceptionTime": "92.1 %", "WEASEL-2.0": "97.5 %", "FreshPRINCE": "86.8 %"},
        ),
        _series(
            "ACSF1",
            "Ten kinds of household appliances by their power consumption, 1460 steps (UCR archive).",
            {"batch_size": 16, "epochs": 60},
            {"HC2": "91.0 %", "InceptionTime": "91.0 %", "WEASEL-2.0": "93.0 %", "FreshPRINCE": "89.0 %"},
        ),
        _series(
            "Covid3Month",
            "A country's death rate by 84 days of confirmed cases, a regression (Monash archive).",
            {"batch_size": 16, "epochs": 100},
            {},
        ),
        Benchmark("digits", "scikit-learn's 8 x 8 digits, a pixel a step.", "digits", _DIGITS, lrs=_TWO_RATES),
        Benchmark(
            "permuted-digits",
            "The digits, their pixels in one fixed random order.",
            "digits",
            {**_DIGITS, "permute": True},
            lrs=_TWO_RATES,
        ),
        Benchmark(
            "characters",
            "The next character of Python's language reference (pydoc_data.topics of the standard library), from at "
            "most 100 before it.",
            "characters",
            {"length": 100, "batch_size": 32, "epochs": 12, "steps_per_epoch": 25, "hidden_size": 128},
            lrs=_TWO_RATES,
        ),
        Benchmark(
            "mnist",
            "Pixel-by-pixel MNIST, 784 steps: 5000 images unless --data names the full set.",
            "mnist",
            {"epochs": 7},
            _mnist(permuted=False),
            lrs=_TWO_RATES,
        ),
        Benchmark(
            "permuted-mnist",
            "Pixel-by-pixel MNIST, the pixels in one fixed random order.",
            "mnist",
            {"permute": True},
            _mnist(permuted=True),
        ),
    )
}
