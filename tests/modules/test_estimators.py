"""Networks as scikit-learn's estimators: what scikit-learn does with one."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.dataset import ValidSplit

import vfrnn
from vfrnn.estimators import SequenceClassifier, SequenceRegressor

QUICK = {"module__hidden_size": 8, "lr": 0.02, "batch_size": 8, "random_state": 0}


def waves(count=24, times=False):
    """Sines of two frequencies, 10 to 30 samples long, at irregular times; the first feature may be the time."""
    rng, sequences = np.random.default_rng(0), []
    labels = np.array(["slow", "fast"] * (count // 2))
    for label in labels:
        t = np.cumsum(rng.uniform(0.1, 1.9, rng.integers(10, 30)))
        wave = np.sin((0.3 if label == "slow" else 1.2) * t)[:, None]
        sequences.append(np.concatenate([100 * t[:, None], wave], 1) if times else wave)
    return sequences, labels


def test_a_classifier_learns_and_is_pickled():
    X, y = waves()
    model = SequenceClassifier(max_epochs=60, **QUICK).fit(X, y)
    assert model.classes_.tolist() == ["fast", "slow"]
    assert model.score(X, y) > 0.9
    proba = model.predict_proba(X)
    assert proba.shape == (24, 2)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    # each sequence as if it were alone, and whatever it is batched with
    for k in (0, 5):
        np.testing.assert_allclose(model.predict_proba(X[k : k + 1])[0], proba[k], rtol=1e-5, atol=1e-6)


def test_a_regressor_learns_sums():
    rng = np.random.default_rng(0)
    X = [rng.uniform(-1, 1, (T, 2)) for T in rng.integers(2, 8, 60)]
    y = np.array([x[:, 0].sum() for x in X])
    model = SequenceRegressor(max_epochs=40, module__nonlinearity="identity", **QUICK).fit(X, y)
    assert model.predict(X).shape == (60,)
    assert model.score(X, y) > 0.9
    both = SequenceRegressor(max_epochs=1, **QUICK).fit(X, np.stack([y, -y], 1))
    assert both.predict(X).shape == (60, 2)
    equal = np.stack([x[:2] for x in X])
    np.testing.assert_allclose(model.predict(equal), model.predict(list(equal)), rtol=1e-6)
    np.testing.assert_allclose(model.predict(torch.tensor(equal)), model.predict(equal), rtol=1e-6)


@pytest.mark.parametrize("network", [vfrnn.VFRNN, vfrnn.OrthogonalRNN])
def test_times(network):
    """Stamps in another unit, or from another beginning, are the same data; other stamps are others."""
    X, y = waves(times=True)
    models = [
        SequenceClassifier(times=True, module__network=network, max_epochs=2, **QUICK).fit(data, y)
        for data in (X, [x * [60.0, 1.0] + [7.0, 0.0] for x in X])
    ]
    assert models[0].n_features_in_ == 2
    assert models[0].module_.network.input_size == 1
    assert models[1].time_unit_ == pytest.approx(60 * models[0].time_unit_)
    moved = [x * [60.0, 1.0] + [7.0, 0.0] for x in X]
    np.testing.assert_allclose(models[0].predict_proba(X), models[1].predict_proba(moved), rtol=1e-3)
    stretched = [x * [2.0, 1.0] for x in X]
    assert np.abs(models[0].predict_proba(stretched) - models[0].predict_proba(X)).max() > 1e-3
    module, x = models[0].module_, X[3]
    dt = torch.tensor(np.diff(x[:, 0], prepend=x[0, 0]) / models[0].time_unit_, dtype=torch.float32)
    last, _ = module.network(torch.tensor(x[:, 1:], dtype=torch.float32), dt=dt, return_sequence=False)
    expected = module.readout(last).softmax(-1).detach().numpy()
    np.testing.assert_allclose(models[0].predict_proba([x])[0], expected, rtol=1e-4, atol=1e-6)


def test_what_scikit_learn_does():
    X, y = waves()
    model = SequenceClassifier(max_epochs=2, module__num_layers=2, **QUICK)
    assert is_classifier(model)
    assert is_regressor(SequenceRegressor())
    copied = clone(model)
    assert copied.get_params()["module__num_layers"] == 2
    assert not hasattr(copied, "module_")
    assert clone(model).fit(X, y).get_params().keys() == model.get_params().keys()  # fit sets no argument
    search = GridSearchCV(model, {"module__hidden_size": [4, 8], "module__network": [vfrnn.RNN, vfrnn.VFRNN]}, cv=2)
    search.fit(X, y)
    assert set(search.best_params_) == {"module__hidden_size", "module__network"}
    assert search.best_estimator_.module_.network.hidden_size == search.best_params_["module__hidden_size"]
    assert clone(search.best_estimator_).fit(X, y).score(X, y) >= 0
    assert cross_val_score(SequenceRegressor(max_epochs=1, **QUICK), X, [len(x) for x in X], cv=3).shape == (3,)
    scaled = make_pipeline(FunctionTransformer(lambda X: [2 * x for x in X]), clone(model)).fit(X, y)
    assert scaled.predict(X).shape == (24,)
    with pytest.raises(NotFittedError):
        clone(model).predict(X)


def test_a_seed_repeats_and_leaves_the_generator():
    X, y = waves()
    state = torch.get_rng_state()
    models = [SequenceClassifier(max_epochs=2, **QUICK).fit(X, y) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    one, other = (model.predict_proba(X) for model in models)
    np.testing.assert_array_equal(one, other)
    third = SequenceClassifier(max_epochs=2, **{**QUICK, "random_state": 1}).fit(X, y).predict_proba(X)
    assert np.abs(third - one).max() > 1e-3


def test_skorchs_own_ways(capsys):
    """A validation split, more epochs, another optimizer, rates of their own for the fields."""
    X, y = waves()
    model = SequenceClassifier(
        max_epochs=2, verbose=1, train_split=ValidSplit(3, stratified=True), optimizer=torch.optim.RMSprop,
        optimizer__param_groups=[("network.field*", {"lr": 1e-4})], **QUICK,
    ).fit(X, y)  # fmt: skip
    assert {"train_loss", "valid_loss"} <= set(model.history[-1])
    assert "valid_loss" in capsys.readouterr().out
    assert sorted({group["lr"] for group in model.optimizer_.param_groups}) == [1e-4, 0.02]
    model.partial_fit(X, y)
    assert len(model.history) == 4
    fresh = SequenceClassifier(max_epochs=1, **QUICK).partial_fit(X[:1], y[:1], classes=["fast", "slow"])
    assert fresh.predict_proba(X).shape == (24, 2)


@pytest.mark.parametrize(
    ("X", "options", "error", "words"),
    [
        ("abc", {}, TypeError, r"X must be a list of arrays \(T, i\) or an array \(N, T, i\), got str"),
        ([], {}, ValueError, "X must have at least one sequence, got none"),
        ([np.zeros(3)] * 2, {}, ValueError, r"X\[0\] must have shape \(T, i\) with T > 0, got \(3,\)"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], {}, ValueError, r"X\[1\] must have shape \(T, 2\) with T > 0"),
        ([np.zeros((3, 2)), np.zeros((0, 2))], {}, ValueError, r"X\[1\] must have shape \(T, 2\) with T > 0"),
        ([np.zeros((3, 2)), np.full((3, 2), np.nan)], {}, ValueError, r"X\[1\] must be finite, got NaN or infinity"),
        ([np.zeros((3, 1))] * 2, {"times": True}, ValueError, "the first feature being the time, with T > 0"),
        (
            [np.zeros((3, 2))] * 2,
            {"times": True, "module__network": vfrnn.RNN},
            ValueError,
            "times=True needs a network of VFRNN or OrthogonalRNN, got RNN",
        ),
        (
            [np.zeros((3, 2))] * 2,
            {"times": True, "module__recurrent_dropout": 0.5},
            ValueError,
            "dt must be one time for all steps where recurrent_dropout acts",
        ),
    ],
)
def test_bad_data(X, options, error, words):
    with pytest.raises(error, match=words):
        SequenceClassifier(max_epochs=1, **options).fit(X, [0, 1])


def test_later_data_must_be_alike():
    X, y = waves()
    model = SequenceClassifier(max_epochs=1, **QUICK).fit(X, y)
    with pytest.raises(ValueError, match=r"X\[0\] must have shape \(T, 1\) with T > 0, got \(5, 2\)"):
        model.predict([np.zeros((5, 2))])
    with pytest.raises(ValueError, match="initialize needs the sizes of the data: call fit or partial_fit"):
        clone(model).initialize()
    with pytest.raises(ValueError, match="y must be finite, got NaN or infinity"):
        SequenceRegressor().fit(X, np.full(len(X), np.nan))
    with pytest.raises(ValueError, match=r"y must have shape \(N,\) or \(N, k\), got \(1, 1, 1\)"):
        SequenceRegressor().fit(X[:1], np.zeros((1, 1, 1)))


@pytest.mark.slow  # another process
def test_without_skorch():
    code = (
        "import sys; sys.modules['skorch'] = None\n"
        "import vfrnn\n"
        "try:\n    import vfrnn.estimators\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "vfrnn.estimators needs skorch: pip install 'vfrnn-kernels[estimators]'"
