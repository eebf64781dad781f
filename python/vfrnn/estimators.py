"""SequenceClassifier and SequenceRegressor: networks as scikit-learn's estimators, on skorch.

`pip install 'vfrnn-kernels[estimators]'`
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vfrnn.network import Network
from vfrnn.rnn import VFRNN, FieldNetwork

try:
    from sklearn.preprocessing import LabelEncoder
    from skorch import NeuralNetClassifier, NeuralNetRegressor
    from skorch.callbacks import EpochTimer, PassthroughScoring, PrintLog
    from skorch.utils import is_dataset
except ImportError as error:
    raise ImportError("vfrnn.estimators needs skorch: pip install 'vfrnn-kernels[estimators]'") from error


class SequenceReader(nn.Module):
    """A network, and a linear readout of the last layer's last states: the module of the estimators.

    Args:
        network: `vfrnn.RNN`, `VFRNN`, `OrthogonalRNN` or `InputFieldRNN`.
        hidden_size: of the network.
        input_size, output_size: of the data; the estimators set them. Without output_size the output has no last axis.
        timed: whether the steps have times, which the data bring; the estimators set it.
        options: further arguments of the network, such as `num_layers`.

    Raises:
        ValueError: the steps have times, and the network's cannot.
    """

    def __init__(
        self,
        network: Any = VFRNN,
        hidden_size: int = 64,
        input_size: int = 1,
        output_size: int | None = None,
        timed: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if timed and not issubclass(network, FieldNetwork):
            raise ValueError(f"times=True needs a network of VFRNN or OrthogonalRNN, got {network.__name__}")
        self.network: Network = network(input_size, hidden_size, **options, batch_first=True)
        self.readout = nn.Linear(hidden_size * (1 + self.network.bidirectional), output_size or 1)
        self.flat = output_size is None

    def forward(self, x: Tensor, lengths: Tensor, dt: Tensor | None = None) -> Tensor:
        """(B, output_size) or (B,) from padded sequences x (B, T, i), their lengths (B,) and times of steps (B, T)."""
        T = int(lengths.max())  # of this batch, where the data are padded for all
        times = {} if dt is None else {"dt": dt[:, :T]}
        last, _ = self.network(x[:, :T], lengths=lengths, return_sequence=False, **times)
        output = self.readout(last)
        return output.squeeze(-1) if self.flat else output


class _SequenceEstimator:
    """What both estimators do with sequences, before skorch."""

    times: bool
    random_state: int | None

    def _read_sizes(self, X: Any, y: Any) -> None:
        """Sets what the module and later data follow from."""
        self.n_features_in_ = 0
        arrays = self._checked(X)
        self.n_features_in_ = arrays[0].shape[1]
        steps = np.concatenate([np.diff(array[:, 0]) for array in arrays]) if self.times else np.zeros(0)
        self.time_unit_ = float(np.abs(steps).mean()) or 1.0 if steps.size else 1.0
        self.output_size_ = self._outputs(y)

    def _outputs(self, y: Any) -> int | None:
        raise NotImplementedError

    def _encoded(self, y: Any) -> np.ndarray:
        raise NotImplementedError

    def _checked(self, X: Any) -> list[np.ndarray]:
        """The sequences in float64.

        Raises:
            TypeError, ValueError: they are none, or not as at `fit`.
        """
        if not isinstance(X, (Sequence, np.ndarray, Tensor)) or isinstance(X, str):
            raise TypeError(f"X must be a list of arrays (T, i) or an array (N, T, i), got {type(X).__name__}")
        if len(X) == 0:
            raise ValueError("X must have at least one sequence, got none")
        arrays = [np.asarray(sequence, dtype=np.float64) for sequence in X]
        features = self.n_features_in_ or (arrays[0].shape[1] if arrays[0].ndim == 2 else 0)
        for k, array in enumerate(arrays):
            if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] != features or features <= self.times:
                expected = f"(T, {features})" if features > self.times else "(T, i)"
                of = ", the first feature being the time," if self.times else ""
                raise ValueError(f"X[{k}] must have shape {expected}{of} with T > 0, got {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"X[{k}] must be finite, got NaN or infinity")
        return arrays

    def _padded(self, X: Any) -> dict[str, np.ndarray]:
        """The arguments of the module, for all sequences."""
        arrays = self._checked(X)
        lengths = np.array([len(array) for array in arrays])
        x = np.zeros((len(arrays), lengths.max(), self.n_features_in_ - self.times), np.float32)
        dt = np.zeros(x.shape[:2], np.float32)
        for k, array in enumerate(arrays):
            x[k, : len(array)] = array[:, int(self.times) :]
            if self.times:
                dt[k, : len(array)] = np.diff(array[:, 0], prepend=array[0, 0]) / self.time_unit_
        return {"x": x, "lengths": lengths, **({"dt": dt} if self.times else {})}

    # What follows are skorch's methods.

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        return super().get_dataset(X if is_dataset(X) else self._padded(X), y)  # type: ignore[misc]

    def get_params_for(self, prefix: str) -> dict[str, Any]:
        given: dict[str, Any] = super().get_params_for(prefix)  # type: ignore[misc]
        if prefix != "module":
            return given
        if not hasattr(self, "output_size_"):
            raise ValueError("initialize needs the sizes of the data: call fit or partial_fit")
        sizes = {"input_size": self.n_features_in_ - self.times, "output_size": self.output_size_}
        return {**given, **sizes, "timed": self.times}

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Any:
        self._read_sizes(X, y)
        with self._seeded():
            return super().fit(X, y, **fit_params)  # type: ignore[misc]

    def partial_fit(self, X: Any, y: Any, classes: Any = None, **fit_params: Any) -> Any:
        if not hasattr(self, "output_size_"):
            self._read_sizes(X, y if classes is None else classes)
        return super().partial_fit(X, self._encoded(y), **fit_params)  # type: ignore[misc]

    @contextlib.contextmanager
    def _seeded(self) -> Iterator[None]:
        if self.random_state is None:
            yield
            return
        with torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            yield

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring(name="valid_loss")),
            ("print_log", PrintLog()),
        ]


class SequenceClassifier(_SequenceEstimator, NeuralNetClassifier):
    """Classes of whole sequences by a network: scikit-learn's estimator, a skorch.NeuralNetClassifier.

    X is a list of arrays (T, i) of any lengths T, or one array (N, T, i); y has N labels of any kind.

    Args:
        module: a `SequenceReader`; its arguments are `module__network`, `module__hidden_size`, `module__num_layers`...
        times: whether the first feature is not an input but the time at which the others were measured. The step that
            reads a row then lasts as long as it is since the row before, in units of the mean step of the data of `fit`
            (the first one 0), in `VFRNN` and `OrthogonalRNN`.
        random_state: an int seeds `fit` and leaves the global generator as it was.
        criterion, optimizer, lr, max_epochs, batch_size, train_split, verbose, iterator_train__shuffle, options: as in
            skorch; `optimizer__param_groups=[("network.field*", {"lr": 1e-4})]` is a rate for the fields.

    Raises:
        TypeError, ValueError: at `fit` and `predict`: X is no list of sequences, names which.

    Example:
        >>> X = [sign * torch.rand(T, 1).numpy() for T in (3, 5, 4, 6) for sign in (-1, 1)]
        >>> y = ["down", "up"] * 4
        >>> model = SequenceClassifier(module__hidden_size=8, lr=0.05, max_epochs=20, random_state=0).fit(X, y)
        >>> model.score(X, y)
        1.0
    """

    def __init__(
        self,
        module: Any = SequenceReader,
        *,
        times: bool = False,
        random_state: int | None = None,
        criterion: Any = nn.CrossEntropyLoss,
        optimizer: Any = torch.optim.Adam,
        lr: float = 1e-3,
        max_epochs: int = 20,
        batch_size: int = 32,
        train_split: Any = None,
        verbose: int = 0,
        iterator_train__shuffle: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            module, criterion=criterion, optimizer=optimizer, lr=lr, max_epochs=max_epochs, batch_size=batch_size,
            train_split=train_split, verbose=verbose, iterator_train__shuffle=iterator_train__shuffle, **options,
        )  # fmt: skip
        self.times, self.random_state = times, random_state

    @property
    def classes_(self) -> np.ndarray:
        """The labels, in the order of the columns of `predict_proba`."""
        return self.labels_.classes_

    def _outputs(self, y: Any) -> int | None:
        self.labels_ = LabelEncoder().fit(y)
        return len(self.labels_.classes_)

    def _encoded(self, y: Any) -> np.ndarray:
        return self.labels_.transform(y).astype(np.int64)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each sequence, (N,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]


class SequenceRegressor(_SequenceEstimator, NeuralNetRegressor):
    """Numbers of whole sequences by a network: scikit-learn's estimator, a skorch.NeuralNetRegressor.

    X is a list of arrays (T, i) of any lengths T, or one array (N, T, i); y is (N,) or (N, k). Arguments are those of
    `SequenceClassifier`.

    Example:
        >>> X = [torch.rand(T, 2).numpy() for T in (3, 5, 4, 6)]
        >>> model = SequenceRegressor(module__hidden_size=8, max_epochs=2).fit(X, [x.sum() for x in X])
        >>> model.predict(X).shape
        (4,)
    """

    def __init__(
        self,
        module: Any = SequenceReader,
        *,
        times: bool = False,
        random_state: int | None = None,
        criterion: Any = nn.MSELoss,
        optimizer: Any = torch.optim.Adam,
        lr: float = 1e-3,
        max_epochs: int = 20,
        batch_size: int = 32,
        train_split: Any = None,
        verbose: int = 0,
        iterator_train__shuffle: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            module, criterion=criterion, optimizer=optimizer, lr=lr, max_epochs=max_epochs, batch_size=batch_size,
            train_split=train_split, verbose=verbose, iterator_train__shuffle=iterator_train__shuffle, **options,
        )  # fmt: skip
        self.times, self.random_state = times, random_state

    def _outputs(self, y: Any) -> int | None:
        shape = np.shape(y)
        if len(shape) not in (1, 2):
            raise ValueError(f"y must have shape (N,) or (N, k), got {shape}")
        if not np.isfinite(np.asarray(y, dtype=np.float64)).all():
            raise ValueError("y must be finite, got NaN or infinity")
        return None if len(shape) == 1 else shape[1]

    def _encoded(self, y: Any) -> np.ndarray:
        return np.asarray(y, dtype=np.float32)
