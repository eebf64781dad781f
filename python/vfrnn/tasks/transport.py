"""Transport: a scalar carried by an unknown wind, to be continued from one frame.

A task that asks for a general field: what flows along a compressible wind keeps no norm, and no orthogonal matrix moves
it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

import vfrnn
from vfrnn.tasks.task import Batch, Frames, Generated, TaskOptions

#: Gaussian blobs of a frame, and the range of their widths on a grid of 16 nodes a side.
BLOBS, WIDTHS = 4, (1.8, 3.3)
#: Fourth-order Runge-Kutta steps to a unit of time.
STEPS_PER_UNIT = 4
#: The longest rollout that is judged, in horizons.
FURTHEST = 3


class Transport(Generated):
    r"""frames f_0 (1, B, n), target (T, n, B): a function on a grid of `grid` x `grid` nodes, and the T = `horizon`
    frames after it, at unit times.

    Blobs are carried by a steady wind u that is tangential at the walls: f_t(p) = f_0(X_{-t}(p)), where the
    characteristics dX/dt = u(X) are integrated by Runge and Kutta; nothing of the package takes part. `wind`
    "incompressible" is the curl of a stream function alone, "compressible" has the gradient of a potential beside it.
    Models have no input: the first state is the frame (h = B^{1/2} f on a mesh), so that a VFRNN is the flow of its
    field. Training has `batch_size` sequences in all, drawn by `seed`, and an epoch goes over them `steps_per_epoch`
    times. Metric: relative error of all frames, by the root of the sums of squares.
    """

    input_size, every_step, initial = 1, True, True
    metric_name, larger_is_better = "relative error", False
    EVALUATION_SAMPLES = 64

    def __init__(self, options: TaskOptions) -> None:
        super().__init__(options)
        if options.wind not in ("compressible", "incompressible"):
            raise ValueError(f"wind must be 'compressible' or 'incompressible', got {options.wind!r}")
        if options.grid < 4:
            raise ValueError(f"grid must be at least 4, got {options.grid}")
        if options.horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {options.horizon}")
        self.grid, self.horizon = options.grid, options.horizon
        self.output_size = self.grid**2
        axis = torch.arange(self.grid, dtype=torch.float64)
        self._nodes = torch.cartesian_prod(axis, axis)
        self._sequences: Batch | None = None
        self._evaluated: dict[str, Batch] = {}
        frames, target = self.evaluation_batch("test")
        self.baseline = self.metric(frames.expand(self.horizon, -1, -1), target)  # of the first frame, repeated

    def wind(self, points: Tensor) -> Tensor:
        """u at points (.., 2) in units of the grid's spacing, float64."""
        x, y = (points * (math.pi / (self.grid - 1))).unbind(-1)
        sx, cx, sy, cy = x.sin(), x.cos(), y.sin(), y.cos()
        # streams sin x sin y and 0.4 sin x sin 2 y; potentials cos x cos y and cos 2 x / 2
        u = 0.6 * torch.stack([sx * cy + 0.8 * sx * (2 * y).cos(), -cx * sy - 0.4 * cx * (2 * y).sin()], -1)
        if self._options.wind == "incompressible":
            return u
        return u + 0.5 * torch.stack([-sx * cy - (2 * x).sin(), -cx * sy], -1)

    def cells(self) -> Tensor:
        """The centres of the cells of `LatentMesh.grid`, (m, 2)."""
        axis = torch.arange(self.grid - 1, dtype=torch.float64) + 0.5
        return torch.cartesian_prod(axis, axis)

    def sequences(self, count: int, generator: torch.Generator, horizon: int) -> Batch:
        """`count` first frames, and the `horizon` frames after each."""
        centres = torch.rand(count, BLOBS, 2, generator=generator, dtype=torch.float64) * (self.grid - 1)
        heights = torch.randn(count, BLOBS, generator=generator, dtype=torch.float64)
        narrow, wide = WIDTHS
        widths = narrow + (wide - narrow) * torch.rand(count, BLOBS, generator=generator, dtype=torch.float64)
        widths = widths * self.grid / 16

        def value(points: Tensor) -> Tensor:  # (n, 2) -> (B, n)
            squares = (points[:, None] - centres[:, None]).square().sum(-1)
            return (heights[:, None] * torch.exp(-squares / (2 * widths[:, None].square()))).sum(-1)

        points, frames = self._nodes, [value(self._nodes)]
        for _ in range(horizon):  # X_{-t-1} = X_{-1} of X_{-t}: the wind is steady
            points = self._one_unit_back(points)
            frames.append(value(points))
        every = torch.stack(frames).float()
        return every[:1], every[1:].mT

    def _one_unit_back(self, points: Tensor) -> Tensor:
        h = -1.0 / STEPS_PER_UNIT
        for _ in range(STEPS_PER_UNIT):
            k1 = self.wind(points)
            k2 = self.wind(points + h / 2 * k1)
            k3 = self.wind(points + h / 2 * k2)
            k4 = self.wind(points + h * k3)
            points = points + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return points

    def training_batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """The same sequences, again and again."""
        if self._sequences is None:
            drawn = torch.Generator().manual_seed(1 + self._options.seed)
            self._sequences = self.sequences(self._options.batch_size, drawn, self.horizon)
        for _ in range(self._options.steps_per_epoch):
            yield self._sequences

    def evaluation_batch(self, split: str) -> Batch:
        """The fixed batch of "validation" or "test", kept: to integrate it takes as long as to train an epoch."""
        if split not in self._evaluated:
            self._evaluated[split] = super().evaluation_batch(split)
        return self._evaluated[split]

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` sequences."""
        return self.sequences(count, generator, self.horizon)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean squared error of all frames."""
        return (output - target.mT).square().mean()

    def metric(self, output: Tensor, target: Tensor) -> float:
        return _relative(output, target.mT)

    def measures(self, model: torch.nn.Module) -> dict[str, float]:
        """The relative error of the last frame, of that at three times the horizon, and, on the mesh of the grid, of
        the first layer's field, scaled to fit the wind best at the cells' centres (h flows along minus the wind)."""
        generator = torch.Generator().manual_seed(self.SPLIT_SEEDS["test"])
        frames, target = self.sequences(self.EVALUATION_SAMPLES, generator, FURTHEST * self.horizon)
        with torch.no_grad():
            output = model(frames, steps=len(target))
        found = {
            f"error at {t}": _relative(output[t - 1], target[t - 1].mT) for t in (self.horizon, FURTHEST * self.horizon)
        }
        layer = getattr(model, "layer", None)
        if isinstance(layer, vfrnn.VFRNN | vfrnn.OrthogonalRNN) and self._is_the_grid(layer.mesh):
            field, wind = layer.get_parameter("field_l0").detach().double(), self.wind(self.cells())
            scale = (field * wind).sum() / field.square().sum().clamp(min=1e-30)
            found["error of the field"] = float((scale * field - wind).norm() / wind.norm())
        return found

    def velocities(self) -> Tensor:
        """The wind at the cells' centres, (grid - 1, grid - 1, 2): frames are a unit of time apart."""
        return self.wind(self.cells()).view(self.grid - 1, self.grid - 1, 2)

    def frames(self, model: torch.nn.Module) -> Frames:
        """The first sequence of the test, to the horizon."""
        first, target = self.evaluation_batch("test")
        with torch.no_grad():
            found = model(first[:, :1])
        true, predicted = (
            torch.cat([first[:, 0], later]).double().view(-1, self.grid, self.grid)
            for later in (target[..., 0], found[:, 0])
        )
        return Frames(true, predicted)

    def _is_the_grid(self, mesh: vfrnn.LatentMesh) -> bool:
        right, found = vfrnn.LatentMesh.grid(self.grid, self.grid).G, mesh.G
        return found is not None and right is not None and found.shape == right.shape and torch.equal(found, right)


def _relative(found: Tensor, right: Tensor) -> float:
    return float((found.detach().double() - right.double()).norm() / right.double().norm())
