"""convert: the torch.nn.RNN layers of a model replaced by this package's, or the other way, and a report of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vfrnn.folding import as_torch, is_ours, why_not_as_torch
from vfrnn.mesh import LatentMesh
from vfrnn.passes import PASS_HOOKS, forget_passes
from vfrnn.rnn import RNN, VFRNN, Network, OrthogonalRNN
from vfrnn_kernels.checks import check_choice, check_module

Target = Literal["rnn", "orthogonal", "vfrnn", "torch"]
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
TARGETS: dict[str, Any] = {"rnn": RNN, "orthogonal": OrthogonalRNN, "vfrnn": VFRNN}


@dataclass(frozen=True)
class Replacement:
    """A layer that was replaced.

    Attributes:
        names: where it was in the model; "" is the model itself.
        before, after: the two layers in words.
        distances: for every layer and direction ("l0", "l0_reverse", ...) the Frobenius norm `||W - Q||` of the
            recurrent weight W and the step matrix Q it starts from; 0 where nothing changed (`to="rnn"`); none to
            "torch".
        reflections: those layers and directions whose nearest orthogonal matrix is a reflection (determinant -1). No
            field reaches it; Q is the nearest rotation.
    """

    names: tuple[str, ...]
    before: str
    after: str
    distances: dict[str, float]
    reflections: tuple[str, ...]


@dataclass(frozen=True)
class Conversion:
    """What `convert` did; printed, a line for every layer.

    Attributes:
        model: the model: the same object, or the new layer where the model was a layer itself.
        replaced: the layers that were replaced.
        kept: the recurrent layers that were not, by name, and why.
    """

    model: nn.Module
    replaced: tuple[Replacement, ...]
    kept: dict[str, str]

    def __str__(self) -> str:
        lines = [_line(replacement) for replacement in self.replaced]
        lines += [f"{_title(name)}: kept, {reason}" for name, reason in self.kept.items()]
        return "\n".join(lines) or "no recurrent layer found"


def convert(
    model: nn.Module,
    to: Target = "rnn",
    *,
    exp_dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Conversion:
    """Replaces every torch.nn.RNN in a model, in place, or with `to="torch"` every layer of this package.

    "rnn" gives the same outputs from the same parameters. "orthogonal" and "vfrnn" start from the orthogonal matrix
    nearest to the recurrent weight in the Frobenius norm, its polar factor Q: the field is the principal logarithm of
    Q, computed in float64. They keep `nonlinearity`; their bias is the sum of the two biases.

    "torch" gives a torch.nn.RNN for every `RNN`, `OrthogonalRNN` and `VFRNN`, a torch.nn.RNNCell for their cells, with
    equal outputs: step matrices, and the weights that `vfrnn.parametrizations.orthogonal` makes in any module, are
    computed once and become plain parameters, rounded where these have 16 bits. What torch has no layer for is
    kept: other nonlinearities than tanh and relu, fields that read the input, `learn_h0` and `zoneout`. `dt=`, `M=` and
    the other arguments of our `forward` are gone, and so is `recurrent_dropout`, which acts in training alone.

    Sizes, options, device, dtype, training mode and `requires_grad` are kept. Parameters that mean the same (all of
    "rnn", otherwise the input weights, and to "torch" the biases) stay the same objects; an optimizer made before does
    not know the others.

    Args:
        model: any module. A layer that occurs twice in it is replaced by one layer in both places. What is not
            registered as a submodule is not seen.
        to: "rnn" for `vfrnn.RNN`, "orthogonal" for `OrthogonalRNN`, "vfrnn" for `VFRNN`, "torch" for torch's layers.
        exp_dtype: of "orthogonal" and "vfrnn", as there.
        backend: of the new layers; not to "torch".

    Returns:
        A `Conversion`: the model, what was replaced by what, and the recurrent layers that were kept and why: LSTM,
        GRU, cells, subclasses, and layers with parametrizations or hooks.

    Raises:
        TypeError: the model is no module.
        ValueError: `to` is unknown, or a recurrent weight is not finite or on the meta device, or `exp_dtype` or
            `backend` is given to "torch".

    Example:
        >>> model = torch.nn.ModuleDict({"rnn": torch.nn.RNN(3, 4), "lstm": torch.nn.LSTM(3, 4)})
        >>> print(convert(model))
        rnn: RNN(3, 4) -> RNN(3, 4)
        lstm: kept, LSTM has gates
    """
    check_module("model", model)
    check_choice("to", to, [*TARGETS, "torch"])
    out = to == "torch"
    for argument, value in (("exp_dtype", exp_dtype), ("backend", backend)):
        if out and value is not None:
            raise ValueError(f'{argument} must be None for to="torch", whose layers have none, got {value}')
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if is_ours(module) if out else isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            names.setdefault(module, []).append(name)
    replaced, kept = [], {}
    for old, places in names.items():
        reason = why_not_as_torch(old) if out else _why_not(old)
        if reason is not None:
            kept.update(dict.fromkeys(places, reason))
            continue
        before = _words(old)
        found = (as_torch(old), {}, ()) if out else _replacement(old, to, exp_dtype, backend)
        new, distances, reflections = cast("tuple[nn.Module, dict[str, float], tuple[str, ...]]", found)
        for name in places:
            if name == "":
                model = new
            else:
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, new)
        replaced.append(Replacement(tuple(places), before, _words(new), distances, reflections))
    if out:
        for module in model.modules():
            forget_passes(module)
    return Conversion(model, tuple(replaced), kept)


def _why_not(module: nn.Module) -> str | None:
    """Why this recurrent module cannot be replaced, None if it can."""
    if isinstance(module, (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)):
        return f"{type(module).__name__} has gates"
    if isinstance(module, nn.RNNCellBase):
        return "only torch.nn.RNN is replaced, not cells"
    if nn.utils.parametrize.is_parametrized(module):
        return "it has parametrizations; torch.nn.utils.parametrize.remove_parametrizations makes it plain"
    if getattr(module, "proj_size", 0):
        return f"it has proj_size={module.proj_size}"
    if type(module) is not nn.RNN:
        return f"it is no torch.nn.RNN but a {type(module).__name__}, which may compute something else"
    hooks = [hook for kind in HOOKS for hook in getattr(module, kind).values()]
    if any(hook not in PASS_HOOKS for hook in hooks):
        return "it has hooks"
    return None


def _replacement(
    old: Any, to: Target, exp_dtype: torch.dtype | None, backend: str | None
) -> tuple[Network, dict[str, float], tuple[str, ...]]:
    """The new layer, its distances and its reflections (`Replacement`)."""
    same = ("num_layers", "nonlinearity", "bias", "batch_first", "bidirectional")
    options: dict[str, Any] = {name: getattr(old, name) for name in same}
    if to != "rnn":
        options["exp_dtype"] = exp_dtype
    # Parameters are made on the meta device: no memory, and no number of the global generator.
    new: Any = TARGETS[to](old.input_size, old.hidden_size, backend=backend, device="meta", **options)
    new.dropout = float(old.dropout)  # of a single layer it has warned already
    new.train(old.training)
    distances, reflections = {}, []
    for suffix in new.suffixes:
        if to == "rnn":
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if old.bias else 2]:
                setattr(new, name + suffix, getattr(old, name + suffix))
            distances[suffix[1:]] = 0.0
        else:
            distances[suffix[1:]], reflected = _fill_field_layer(new, old, suffix)
            reflections += [suffix[1:]] if reflected else []
    return new, distances, tuple(reflections)


def _fill_field_layer(new: Any, old: Any, suffix: str) -> tuple[float, bool]:
    """Gives a layer of `new` the parameters of `old`; `||W - Q||`, and whether a reflection is nearer to W than Q."""
    weight = getattr(old, "weight_hh" + suffix)
    like = {"device": weight.device, "dtype": weight.dtype}
    Q, reflected = nearest_rotation(weight)
    setattr(new, "weight_ih" + suffix, getattr(old, "weight_ih" + suffix))
    setattr(new, "mesh" + suffix, LatentMesh.complete(new.hidden_size, **like))
    i, j = torch.triu_indices(new.hidden_size, new.hidden_size, 1)
    field = rotation_logarithm(Q)[i, j].unsqueeze(-1).to(**like)  # on the complete mesh v is the upper triangle of S
    _set(new, "field" + suffix, field, weight.requires_grad)
    if old.bias:
        biases = [getattr(old, name + suffix) for name in ("bias_ih", "bias_hh")]
        _set(new, "bias" + suffix, (biases[0] + biases[1]).detach(), any(bias.requires_grad for bias in biases))
    if hasattr(new, "divergence_scale" + suffix):
        _set(new, "divergence_scale" + suffix, torch.zeros(1, **like), weight.requires_grad)
    return float(torch.linalg.matrix_norm(weight.detach().double().cpu() - Q)), reflected


def _set(module: nn.Module, name: str, value: Tensor, requires_grad: bool) -> None:
    setattr(module, name, nn.Parameter(value, requires_grad))


def nearest_rotation(W: Tensor) -> tuple[Tensor, bool]:
    """The rotation nearest to W (n, n) in the Frobenius norm, float64 on the CPU, and whether a reflection is nearer.

    It is the polar factor U V^T of the singular value decomposition of W, where that has determinant -1 with the
    direction of the smallest singular value reversed.

    Raises:
        ValueError: W is not finite, or has no values.

    Example:
        >>> Q, reflected = nearest_rotation(torch.tensor([[3.0, 0.0], [0.0, -2.0]]))
        >>> Q.tolist(), reflected
        ([[1.0, 0.0], [0.0, 1.0]], True)
    """
    if W.is_meta:
        raise ValueError("the module's recurrent weight W must have values, got a tensor on the meta device")
    W = W.detach().double().cpu()
    if not bool(W.isfinite().all()):
        raise ValueError("the module's recurrent weight W must be finite, got NaN or infinity")
    U, _, Vh = torch.linalg.svd(W)
    reflected = bool(torch.linalg.det(U @ Vh) < 0)
    if reflected:
        U[:, -1] = -U[:, -1]
    return U @ Vh, reflected


def rotation_logarithm(Q: Tensor) -> Tensor:
    """The principal logarithm of a rotation Q (n, n) in float64: the skew-symmetric S with exp(S) = Q and angles in
    [-pi, pi]. Where Q turns a plane by pi, either sense of rotation is right, and one is taken.

    Q is split into what it turns by small and by large angles. Small ones are halved by square roots until a series
    gives them; of large ones, Q = -R, R turns by the small angles that they lack to pi.

    Example:
        >>> [[round(y, 4) for y in row] for row in rotation_logarithm(-torch.eye(2).double()).abs().tolist()]
        [[0.0, 3.1416], [3.1416, 0.0]]
    """
    # Planes belong to pairs of equal cosines; between -3/4 and 1/4 the widest gap splits no pair, and it separates the
    # two invariant subspaces well.
    cosines, basis = torch.linalg.eigh((Q + Q.mT) / 2)
    k = int(torch.cat([Q.new_tensor([-0.75]), cosines.clamp(-0.75, 0.25), Q.new_tensor([0.25])]).diff().argmax())
    large, small = basis[:, :k], basis[:, k:]
    S = small @ _small_logarithm(small.mT @ Q @ small) @ small.mT
    lacking = _small_logarithm(-large.mT @ Q @ large)
    return _skew(S + large @ (lacking - torch.pi * _sense(lacking)) @ large.mT)


def _small_logarithm(R: Tensor) -> Tensor:
    """The logarithm of a rotation whose angles stay away from pi: 6 square roots, then the series of arcsinh in the
    skew part, whose terms fall by a factor of 500 at least (angles are below 0.04)."""
    eye = torch.eye(R.shape[0], dtype=R.dtype)
    for _ in range(6):
        U, _, Vh = torch.linalg.svd(R + eye)  # sqrt(R) is the polar factor of R + I
        R = U @ Vh
    K = _skew(R)
    square = K @ K
    series = eye
    for ratio in (-81 / 110, -49 / 72, -25 / 42, -9 / 20, -1 / 6):  # asinh(K) = K (1 - K^2/6 (1 - 9 K^2/20 (...)))
        series = eye + ratio * square @ series
    return 64 * K @ series


def _sense(S: Tensor) -> Tensor:
    """J with J^2 = -I that turns every plane of the skew-symmetric S (k, k), k even, in the sense in which S does.

    It is the polar factor of S. Where S does not turn, which rounding blurs, J pairs any orthonormal vectors.
    """
    U, s, Vh = torch.linalg.svd(S)
    turning = int((s > 1e-12).sum()) // 2 * 2
    rest = Vh[turning:].mT
    J = _skew(U[:, :turning] @ Vh[:turning]) + _skew(2 * rest[:, 0::2] @ rest[:, 1::2].mT)
    for _ in range(4):  # Newton's iteration for the nearest skew-symmetric J with J^2 = -I
        J = 1.5 * J + 0.5 * J @ J @ J
    return J


def _skew(A: Tensor) -> Tensor:
    return (A - A.mT) / 2


def _words(module: nn.Module) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"


def _title(name: str) -> str:
    return name or "(the model)"


def _line(replacement: Replacement) -> str:
    distances = [
        f"{distance:.3g} ({place}{', a reflection is nearer' if place in replacement.reflections else ''})"
        for place, distance in replacement.distances.items()
        if distance
    ]
    words = f"; ||W - Q|| = {', '.join(distances)}" if distances else ""
    return f"{', '.join(map(_title, replacement.names))}: {replacement.before} -> {replacement.after}{words}"
