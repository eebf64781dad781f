"""`vfrnn train`: a training run with a progress bar, an exact resume, a JSON log and a learning-curve picture."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from vfrnn_kernels.activations import ACTIVATIONS
from vfrnn_kernels.checks import LARGEST_SIZE

# What a plain `vfrnn train --task TASK` uses, found with the validation split; an option given replaces its entry.
DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 60, "batch_size": 16, "hidden_size": 128, "lr": 1e-2, "generator_lr": 1e-3, "init": "cayley"},
    "copying": {"epochs": 20, "batch_size": 64, "hidden_size": 128, "lr": 1e-3, "generator_lr": 1e-4, "init": "henaff"},
    "denoise": {"epochs": 20, "batch_size": 64, "hidden_size": 128, "lr": 1e-3, "generator_lr": 1e-4, "init": "henaff"},
    "adding": {"epochs": 100, "batch_size": 64, "hidden_size": 128, "lr": 5e-3, "generator_lr": 5e-4, "init": "cayley"},
    "mnist": {"epochs": 30, "batch_size": 64, "hidden_size": 170, "lr": 5e-3, "generator_lr": 5e-4, "init": "cayley"},
    "co2": {"epochs": 80, "batch_size": 32, "hidden_size": 64, "lr": 5e-3, "generator_lr": 5e-4, "init": "cayley"},
    "characters": {
        "epochs": 20, "batch_size": 64, "hidden_size": 192, "lr": 3e-3, "generator_lr": 3e-3, "init": "henaff",
    },
    "transport": {
        "epochs": 30, "batch_size": 24, "steps_per_epoch": 10, "lr": 3e-2, "generator_lr": 3e-2, "init": "zero",
        "mesh": "grid", "substeps": 4,
    },
    "series": {"epochs": 60, "batch_size": 32, "hidden_size": 64, "lr": 5e-3, "generator_lr": 5e-4, "init": "cayley"},
}  # fmt: skip
# What every task has that does not say otherwise.
COMMON: dict[str, Any] = {"steps_per_epoch": 50, "mesh": "complete", "substeps": 1}
# A peer that does better at another rate than ours gets it.
PEER_RATES = {
    ("digits", "torch-orthogonal"): 5e-3,
    **{("transport", model): 3e-3 for model in ("rnn", "lstm", "gru", "torch-orthogonal", "identity-rnn", "geotorch")},
}
# What --data alone stands for; the other tasks have names, and one of them reads a folder of its own files.
OWN_DATA, READS_A_FOLDER = "series", "mnist"
TASK_NAMES = tuple(name for name in DEFAULTS if name != OWN_DATA)
MODEL_NAMES = ("vfrnn", "orthogonal", "rnn", "lstm", "gru", "torch-orthogonal", "identity-rnn", "geotorch")


def _positive_int(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    if value > LARGEST_SIZE:
        raise argparse.ArgumentTypeError(f"must be at most {LARGEST_SIZE}, got {value}")
    return value


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive and finite, got {text}")
    return value


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "train",
        help="train models on a task",
        description="Train one or several models on the same data in the same run, an epoch each in turn.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    what = parser.add_argument_group("what")
    what.add_argument(
        "--task",
        choices=TASK_NAMES,
        help="digits: scikit-learn's, one pixel a step; mnist: 5000 images; characters: of Python's language reference",
    )
    what.add_argument(
        "--model",
        nargs="+",
        choices=MODEL_NAMES,
        default=["vfrnn"],
        help="torch-orthogonal is PyTorch's orthogonal parametrization of torch.nn.RNN; identity-rnn is torch.nn.RNN "
        "started at the identity; geotorch is expRNN's setting there",
    )
    what.add_argument("--permute", action="store_true", help="digits, mnist: one fixed permutation of the pixels")
    what.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="series of your own, in place of --task: a .ts or .npz file, or a folder with NAME_TRAIN and NAME_TEST; "
        "with --task mnist: folder of the four IDX files of the full set; with --resume: where the data are now",
    )
    what.add_argument("--delay", type=_positive_int, default=200, help="copying, denoise: steps before the recall")
    what.add_argument("--length", type=_positive_int, default=200, help="adding, characters: length of the sequences")
    what.add_argument(
        "--wind",
        choices=("compressible", "incompressible"),
        default="compressible",
        help="transport: what carries the frames",
    )
    what.add_argument(
        "--grid", type=_positive_int, default=16, help="transport: nodes a side; their number is the hidden size"
    )
    what.add_argument("--horizon", type=_positive_int, default=10, help="transport: frames to continue")
    how = parser.add_argument_group("training (defaults by task)")
    for name, kind in (("epochs", _positive_int), ("batch-size", _positive_int), ("hidden-size", _positive_int)):
        how.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS)
    how.add_argument(
        "--steps-per-epoch", type=_positive_int, default=argparse.SUPPRESS, help="of tasks without end (50)"
    )
    how.add_argument("--lr", type=_positive_float, default=argparse.SUPPRESS, help="peak learning rate (Adam, cosine)")
    how.add_argument(
        "--generator-lr", type=_positive_float, default=argparse.SUPPRESS, help="peak rate of the field parameters"
    )
    how.add_argument("--clip", type=_positive_float, default=1.0, help="largest norm of the gradient")
    how.add_argument("--seed", type=int, default=0)
    how.add_argument("--threads", type=_positive_int, help="threads of torch (all cores)")
    how.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="of the models; under torchrun a GPU each process"
    )
    model = parser.add_argument_group("model")
    model.add_argument("--layers", type=_positive_int, default=1)
    model.add_argument("--init", choices=("henaff", "cayley", "zero"), default=argparse.SUPPRESS)
    model.add_argument(
        "--mesh",
        choices=("complete", "random", "grid"),
        default=argparse.SUPPRESS,
        help="of the latent space; grid: square (complete; transport: grid)",
    )
    model.add_argument("--cells", type=_positive_int, help="random mesh: cells (twice the hidden size)")
    model.add_argument("--dim", type=_positive_int, default=8, help="random mesh: dimension of the tangent spaces")
    model.add_argument("--dt", type=_positive_float, default=1.0, help="time step")
    model.add_argument("--substeps", type=_positive_int, default=argparse.SUPPRESS, help="(1; transport: 4)")
    model.add_argument("--volume-preserving", action="store_true")
    model.add_argument("--nonlinearity", choices=ACTIVATIONS, help="the model's own if not given")
    model.add_argument("--backend", help="of our layers: cpu, triton or reference")
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, help="folder of checkpoint, log and picture (runs/TASK-DATA-MODELS)")
    output.add_argument("--resume", type=Path, metavar="DIR", help="continue the run in DIR exactly where it stopped")
    output.add_argument("--stop-after", type=_positive_int, metavar="EPOCHS", help="stop early, to be resumed")
    output.add_argument(
        "--no-page", action="store_true", help="transport: without the page of what was learned (vfrnn inspect DIR)"
    )
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, and print the summary; returns the exit code."""
    import torch

    from vfrnn.tasks.data_parallel import joined
    from vfrnn.tasks.training import Training

    if arguments.device == "cuda" and not torch.cuda.is_available():
        arguments.parser.error("argument --device: cuda needs a GPU and a CUDA build of torch, got none")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.data = None if arguments.data is None else str(arguments.data.resolve())
    options = None if arguments.resume else _options(arguments)
    with joined(arguments.device) as processes:
        if options is None:
            training = Training.resume(arguments.resume, processes, arguments.data)
        else:
            training = Training(options, processes)
        names = [*training.options.title.split(), *training.options.models]
        folder = arguments.resume or arguments.out or Path("runs") / "-".join(names)
        until = min(arguments.stop_after or training.options.epochs, training.options.epochs)
        if processes.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                _train(training, folder, until, arguments.quiet, not arguments.no_page)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_how_to_go_on(training, folder, until)) from None
        else:  # what the first process writes and prints is the same for all
            training.train(until, lambda trainee, loss: None, lambda: None)
    return 0


def _how_to_go_on(training: Any, folder: Path, until: int) -> str:
    from vfrnn.tasks.training import CHECKPOINT

    if training.epochs_saved == 0:
        return "no epoch was finished, nothing was saved"
    return (
        f"{training.epochs_saved} of {until} epochs are in {folder / CHECKPOINT}: "
        f"go on with vfrnn train --resume {folder}"
    )


def _options(arguments: argparse.Namespace) -> Any:
    from vfrnn.tasks import TaskOptions
    from vfrnn.tasks.models import ModelOptions, check_nonlinearity
    from vfrnn.tasks.training import TrainingOptions
    from vfrnn_kernels.dispatch import get_backend

    if arguments.task is None and arguments.data is None:
        arguments.parser.error("one of --task, --data and --resume is required")
    if arguments.data is not None and arguments.task not in (None, READS_A_FOLDER):
        arguments.parser.error(
            f"argument --data: is a task of its own, and {arguments.task} has its data: give --task or --data"
        )
    arguments.task = arguments.task or OWN_DATA
    if arguments.task == "adding" and arguments.length < 2:
        arguments.parser.error(f"argument --length: must be at least 2, got {arguments.length}")
    if arguments.task == "denoise" and arguments.delay < 10:
        arguments.parser.error(f"argument --delay: must be at least 10 for denoise, got {arguments.delay}")
    if arguments.backend is not None:
        try:
            get_backend(arguments.backend, argument="argument --backend:")
        except ValueError as error:
            arguments.parser.error(str(error))
    if arguments.task == "transport":
        if arguments.grid < 4:
            arguments.parser.error(f"argument --grid: must be at least 4, got {arguments.grid}")
        if "hidden_size" in arguments:
            arguments.parser.error("argument --hidden-size: is the number of nodes for transport: use --grid")
        arguments.hidden_size = arguments.grid**2
    chosen = {**COMMON, **DEFAULTS[arguments.task], **vars(arguments)}
    if chosen["mesh"] == "grid" and math.isqrt(chosen["hidden_size"]) ** 2 != chosen["hidden_size"]:
        arguments.parser.error(
            f"argument --mesh: grid needs a hidden size that is a square, got {chosen['hidden_size']}"
        )
    models = tuple(dict.fromkeys(arguments.model))
    for model in models:
        try:
            check_nonlinearity(model, arguments.nonlinearity, argument="argument --nonlinearity:")
        except ValueError as error:
            arguments.parser.error(str(error))
    peer_rates = {} if "lr" in arguments else PEER_RATES
    return TrainingOptions(
        task=arguments.task,
        models=models,
        lr={model: peer_rates.get((arguments.task, model), chosen["lr"]) for model in models},
        task_options=TaskOptions(**{field.name: chosen[field.name] for field in fields(TaskOptions)}),
        model_options=ModelOptions(
            **{field.name: chosen[field.name] for field in fields(ModelOptions) if field.name != "cells"},
            cells=chosen["cells"] or 0,
        ),
        **{name: chosen[name] for name in ("epochs", "generator_lr", "clip", "seed")},
    )


def _train(training: Any, folder: Path, until: int, quiet: bool, page: bool) -> None:
    from vfrnn.tasks.report import draw, table, write_log

    try:
        from tqdm import tqdm
    except ImportError as error:
        raise RuntimeError("the progress bar needs tqdm: pip install 'vfrnn-kernels[train]'") from error

    names = ", ".join(training.options.models)
    processes = training.processes.size
    print(f"{training.options.title}: {names}; {until} epochs" + f"; {processes} processes" * (processes > 1))
    print(f"{training.task.about}\n" * bool(training.task.about), end="")
    with tqdm(
        total=until, initial=training.epochs_done, unit="epoch", disable=quiet or not sys.stderr.isatty()
    ) as progress:

        def after_step(trainee: Any, loss: float) -> None:
            progress.set_postfix_str(f"{trainee.name}: loss {loss:.4f}")

        def after_epoch() -> None:
            training.save(folder)
            progress.update()
            if progress.disable and not quiet and training.epochs_done % max(1, until // 10) == 0:
                tests = ", ".join(f"{t.name} {t.history[-1].test:.4f}" for t in training.trainees)
                print(f"epoch {training.epochs_done}/{until}: test {training.task.metric_name}: {tests}", flush=True)

        training.train(until, after_step, after_epoch)
    log, picture = write_log(training, folder), draw(training, folder)
    print(table(training))
    print(f"log: {log}\npicture: {picture}")
    print(_what_was_learned(training, folder, page), end="")


def _what_was_learned(training: Any, folder: Path, with_page: bool) -> str:
    """What ends a run with a layer of ours: the page, where frames and a field can be seen, or how to get it."""
    from vfrnn.tasks.inspection import has_layers, inspect_trainee, inspected_trainee, page_folder

    if not has_layers(training):
        return ""
    trainee = inspected_trainee(training)
    if training.task.velocities() is None or not with_page:
        return f"what was learned: vfrnn inspect {folder}\n"
    page = inspect_trainee(training, trainee, page_folder(folder, trainee)).page
    return f"what was learned: {page}\n"
