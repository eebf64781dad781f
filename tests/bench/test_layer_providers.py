"""Who computes layers: every provider gives the float64 results of its case."""

import importlib.util

import pytest
import torch
from vfrnn_bench import layer_providers
from vfrnn_bench.cases import activation_case, recurrence_case, training_step_case
from vfrnn_bench.layer_providers import MODELS, gpu_peers, loop_providers, loss_provider, training_step_providers
from vfrnn_bench.measure import checked
from vfrnn_bench.providers import STEP, Setting

from tests.bench.small import CPU, ON_CPU, SEQUENCE


def not_compiled(name):
    return "compiled" not in name


@pytest.mark.parametrize("update", [True, False])
def test_a_tanh_layer(update):
    case = recurrence_case(SEQUENCE, ON_CPU, loop_providers, update=update)
    right, errors, refused = checked(case, not_compiled)
    assert list(right) == ["vfrnn.RNN", "torch.nn.RNN", "loop"]
    assert not refused
    assert set(errors["loop"]) == set(errors["vfrnn.RNN"])
    assert len(errors["loop"]) == 5  # the output and four parameters


def test_a_layer_in_16_bits_is_compared_with_exact_results_of_its_own_numbers():
    right, errors, _ = checked(recurrence_case(SEQUENCE, Setting(CPU, torch.bfloat16)), not_compiled)
    assert list(right) == ["vfrnn.RNN", "torch.nn.RNN"]
    assert max(errors["torch.nn.RNN"].values()) < 2e-2


def test_a_loop_may_be_compiled():
    assert "loop, compiled step" in loop_providers(SEQUENCE, ON_CPU)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a peer, where it is installed
def test_models():
    right, _, refused = checked(training_step_case(SEQUENCE, ON_CPU, MODELS), not_compiled)
    expected = set(MODELS) - (set() if importlib.util.find_spec("geotorch") else {"geotorch, cached"})
    assert set(right) == expected
    assert not refused


def test_a_model_that_cannot_be_imported_is_left_out(monkeypatch):
    monkeypatch.setattr(layer_providers.importlib.util, "find_spec", lambda name: None)
    assert "geotorch, cached" not in training_step_providers(SEQUENCE, ON_CPU, MODELS)


@pytest.mark.parametrize("autocast", [False, True])
def test_models_with_a_loss_of_their_own(autocast):
    for name, backend in (("vfrnn.VFRNN", "cpu"), ("orthogonal loop", None)):
        provider = loss_provider(MODELS[name], SEQUENCE, ON_CPU, backend, autocast)
        found, exact = provider.runs[STEP]()["output"], provider.exact()["output"]
        assert (found.double() - exact).norm() <= (0.05 if autocast else 1e-5) * exact.norm()
        assert provider.limit == (0.5 if autocast else 2e-2)


def test_activations():
    right, _, refused = checked(activation_case(SEQUENCE, ON_CPU), not_compiled)
    assert list(right) == ["vfrnn modrelu", "vfrnn tanh"]
    assert not refused


def test_peers_of_a_gpu_are_not_sought_without_one():
    assert gpu_peers(SEQUENCE, ON_CPU) == {}
