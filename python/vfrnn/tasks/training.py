"""The training loop: several models on the same batches in the same process, resumable to the bit.

Models take turns, an epoch each, so that their times per step are measured under the same load of the machine. Each has
a data order, an optimizer and a random state of its own: the others do not change what it learns.
"""

from __future__ import annotations

import io
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import vfrnn
from vfrnn.files import write_file
from vfrnn.inspection.records import LayerRecord, layer_records, recurrent_modules
from vfrnn.inspection.twin import check_steps
from vfrnn.optim import param_groups
from vfrnn.tasks import TASKS, Task, TaskOptions
from vfrnn.tasks.data_parallel import Alone, Processes, shard, sum_gradients
from vfrnn.tasks.models import MODELS, ModelOptions, make_model

CHECKPOINT = "checkpoint.pt"
#: Epochs at the end over which the reported test metric is averaged.
LAST_EPOCHS = 5
#: Samples evaluated at once: the states of 10 000 images would fill the memory.
EVALUATION_SAMPLES = 500


@dataclass(frozen=True)
class TrainingOptions:
    """All that defines a run; a checkpoint holds it, so that a resumed run is the same run."""

    task: str
    models: tuple[str, ...]
    epochs: int
    lr: dict[str, float]  # by model
    generator_lr: float
    clip: float
    seed: int
    task_options: TaskOptions
    model_options: ModelOptions

    @property
    def title(self) -> str:
        """The task, and what its data are called where they come from a path."""
        data = self.task_options.data
        return self.task if data is None else f"{self.task} {Path(data).stem}"


@dataclass
class Epoch:
    """What one model did in one epoch. `step_ms` is the median time of its `steps` training steps, in milliseconds;
    `layers` says how our layers move their states after it."""

    epoch: int
    loss: float
    validation: float
    test: float
    step_ms: float
    steps: int
    layers: list[LayerRecord] = field(default_factory=list)


@dataclass
class Trainee:
    """One model in training."""

    name: str
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    random_state: torch.Tensor
    history: list[Epoch] = field(default_factory=list)


class Training:
    """A run of several models on one task. `train` is called once; `save` after every epoch, by one of the processes.
    Nothing of the result depends on the number of processes but the rounding of sums."""

    def __init__(self, options: TrainingOptions, processes: Processes | None = None) -> None:
        self.options = options
        self.processes = processes or Alone()
        self.task: Task = TASKS[options.task](options.task_options)
        self.trainees = [self._trainee(name) for name in options.models]
        #: Epochs in the checkpoint.
        self.epochs_saved = 0

    def _trainee(self, name: str) -> Trainee:
        o = self.options
        model = make_model(name, self.task, o.model_options, o.seed).to(self.processes.device)
        optimizer = torch.optim.Adam(param_groups(model, o.lr[name], o.generator_lr))
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
        return Trainee(name, model, optimizer, torch.Generator().manual_seed(o.seed), torch.get_rng_state())

    @property
    def epochs_done(self) -> int:
        """Epochs that every model has finished."""
        return min(len(trainee.history) for trainee in self.trainees)

    def train(self, until: int, after_step: Callable[[Trainee, float], None], after_epoch: Callable[[], None]) -> None:
        """Train to `until` epochs (at most those of the options).

        Raises:
            FloatingPointError: a loss, a gradient or a parameter is not finite, or a field too strong for its step.
        """
        for epoch in range(self.epochs_done, min(until, self.options.epochs)):
            for trainee in self.trainees:
                torch.set_rng_state(trainee.random_state)
                try:
                    trainee.history.append(self._epoch(trainee, epoch, after_step))
                except RuntimeError as error:
                    _check_steps(trainee, epoch, error)
                    raise
                trainee.random_state = torch.get_rng_state()
            after_epoch()
        for trainee in self.trainees:  # what is told of them is computed on the CPU
            trainee.model.cpu()

    def _epoch(self, trainee: Trainee, epoch: int, after_step: Callable[[Trainee, float], None]) -> Epoch:
        model, optimizer = trainee.model, trainee.optimizer
        # Half a cosine from the peak rate to 0 over the whole run
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * (1 + math.cos(math.pi * epoch / self.options.epochs)) / 2
        model.train()
        parameters = list(model.parameters())
        losses, seconds = [], []
        for batch in self.task.training_batches(trainee.order):
            start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            x, target, share = shard(batch, self.processes)
            loss = torch.zeros((), device=self.processes.device)
            if share > 0:
                loss = share * self.task.loss(model(x), target)
                loss.backward()
            loss = sum_gradients(parameters, loss.detach(), self.processes)
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.options.clip))
            if not math.isfinite(norm) and not _have_finite_gradients(parameters):
                raise FloatingPointError(f"a gradient of {trainee.name} is not finite in epoch {epoch + 1}")
            optimizer.step()
            losses.append(float(loss))  # waits for a GPU
            seconds.append(time.perf_counter() - start)
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss of {trainee.name} is {losses[-1]} in epoch {epoch + 1}")
            after_step(trainee, losses[-1])
        validation, test = (self._evaluate(model, split) for split in ("validation", "test"))
        try:
            layers = layer_records(model)
        except ValueError as error:  # the last step has made a parameter infinite
            raise FloatingPointError(f"{trainee.name} in epoch {epoch + 1}: {error}") from error
        step_ms = 1e3 * statistics.median(seconds)
        return Epoch(epoch + 1, statistics.fmean(losses), validation, test, step_ms, len(seconds), layers)

    def _evaluate(self, model: torch.nn.Module, split: str) -> float:
        model.eval()
        with torch.no_grad():
            x, target = self.task.evaluation_batch(split)
            parts = list(zip(x.split(EVALUATION_SAMPLES, 1), target.split(EVALUATION_SAMPLES, -1), strict=True))
            mine = parts[self.processes.rank :: self.processes.size]
            device = self.processes.device
            found = sum(x.shape[1] * self.task.metric(model(x.to(device)).cpu(), y) for x, y in mine)
            return float(self.processes.sum(torch.tensor(found, dtype=torch.float64, device=device))) / target.shape[-1]

    def save(self, folder: Path) -> None:
        """Write the checkpoint whole or not at all.

        Raises:
            OSError: it cannot be written; one that was there before is as it was.
        """
        state: dict[str, Any] = {
            "version": vfrnn.__version__,
            "options": asdict(self.options),
            "fingerprint": self.task.fingerprint,
            "trainees": {},
        }
        for trainee in self.trainees:
            state["trainees"][trainee.name] = {
                "model": trainee.model.state_dict(),
                "optimizer": trainee.optimizer.state_dict(),
                "order": trainee.order.get_state(),
                "random_state": trainee.random_state,
                "history": [asdict(epoch) for epoch in trainee.history],
            }
        file = io.BytesIO()  # what torch.save says of a disk that is full names neither the disk nor the file
        torch.save(state, file)
        write_file(folder / CHECKPOINT, file.getvalue())
        self.epochs_saved = self.epochs_done

    @classmethod
    def resume(cls, folder: Path, processes: Processes | None = None, data: str | None = None) -> Training:
        """The run saved in `folder`, where it stopped.

        Args:
            folder: of the run.
            processes: that go on; they may be more or fewer than before.
            data: where the data are now, if not where they were.

        Raises:
            FileNotFoundError: `folder` holds no checkpoint.
            RuntimeError: what is there is none that `save` wrote, or the data are not those of the run.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            raise FileNotFoundError(f"{folder} holds no {CHECKPOINT}")
        return cls.load(path, processes, data)

    @classmethod
    def load(cls, path: Path, processes: Processes | None = None, data: str | None = None) -> Training:
        """The run of a checkpoint; arguments as in `resume`.

        Raises:
            FileNotFoundError: the data of the run are not where they were.
            OSError: the file cannot be read.
            RuntimeError: `save` did not write the file, it is cut or of a version of vfrnn whose runs are other ones,
                or the data are not those of the run.
        """
        contents = io.BytesIO(path.read_bytes())
        try:
            # Cut or changed bytes make the reader raise whatever they lead it to.
            state = torch.load(contents, map_location="cpu", weights_only=True)
        except Exception as error:
            raise RuntimeError(
                f"{path} must be a checkpoint of vfrnn train, got a file that is none, or only a part of one"
            ) from error
        if not isinstance(state, dict) or not {"options", "trainees"} <= set(state):
            raise RuntimeError(
                f"{path} must be a checkpoint of vfrnn train, got one without its options: "
                "for a model of your own call vfrnn.inspect(module) in Python"
            )
        try:
            options = dict(state["options"])
            moved = {} if data is None else {"data": data}
            options["task_options"] = TaskOptions(**{**options["task_options"], **moved})
            options["model_options"] = ModelOptions(**options["model_options"])
            options["models"] = tuple(options["models"])
            parsed = TrainingOptions(**options)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _of_another_version(path, state, error) from error
        if parsed.task not in TASKS or not set(parsed.models) <= set(MODELS):
            raise _of_another_version(path, state, f"{parsed.task!r} or one of {parsed.models} is unknown")
        training = cls(parsed, processes)
        expected, found = state.get("fingerprint", ""), training.task.fingerprint
        if expected != found:
            raise RuntimeError(
                f"{path}: {options['task_options'].data or options['task']} must hold the data that the run began with "
                f"(SHA-256 {expected[:16]}), got others ({found[:16]})"
            )
        try:
            for trainee in training.trainees:
                saved = state["trainees"][trainee.name]
                trainee.model.load_state_dict(saved["model"])
                trainee.optimizer.load_state_dict(saved["optimizer"])
                trainee.order.set_state(saved["order"])
                trainee.random_state = saved["random_state"]
                trainee.history = [_epoch(epoch) for epoch in saved["history"]]
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise _of_another_version(path, state, error) from error
        training.epochs_saved = training.epochs_done
        return training


def _of_another_version(path: Path, state: dict[str, Any], why: object) -> RuntimeError:
    version = f"vfrnn {state['version']}" if "version" in state else "an older vfrnn"
    return RuntimeError(
        f"{path} must be a checkpoint that vfrnn {vfrnn.__version__} can go on with, got one of {version}: {why}"
    )


def _have_finite_gradients(parameters: list[torch.nn.Parameter]) -> bool:
    """Whether the step can be taken: the norm of finite gradients may overflow, and then clips them to 0."""
    return all(bool(p.grad.isfinite().all()) for p in parameters if p.grad is not None)


@torch.no_grad()
def _check_steps(trainee: Trainee, epoch: int, error: RuntimeError) -> None:
    """Whether `error` is a kernel's, which refuses a step that the last one of the optimizer has made too large.

    Raises:
        FloatingPointError: it is.
    """
    try:
        for name, recurrent in recurrent_modules(trainee.model).items():
            check_steps(recurrent, name, None)
        for module in trainee.model.modules():
            for name in getattr(module, "parametrizations", ()):
                getattr(module, name)
    except (ValueError, RuntimeError) as why:
        raise FloatingPointError(f"{trainee.name} in epoch {epoch + 1}: {why}") from error


def _epoch(saved: dict[str, Any]) -> Epoch:
    """An epoch from a checkpoint, in which older ones have no layers and no count of steps."""
    return Epoch(**{"steps": 0, **saved, "layers": [LayerRecord(**record) for record in saved.get("layers", [])]})
