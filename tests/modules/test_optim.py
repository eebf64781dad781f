"""param_groups finds the generators of a model, and gives them options of their own."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import vfrnn
from vfrnn import param_groups


def test_param_groups_finds_every_generator_once():
    model = nn.ModuleDict(
        {
            "flow": vfrnn.VFRNN(3, 4, 2, mesh=vfrnn.LatentMesh.complete(4, learn=("b", "w"))),
            "cell": vfrnn.OrthogonalRNNCell(3, 4),
            "ours": vfrnn.parametrizations.orthogonal(nn.Linear(4, 4)),
            "torchs": nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)),
            "plain": vfrnn.RNN(4, 4),
        }
    )
    parametrize.register_parametrization(model["plain"], "weight_hh_l0", nn.Identity())
    model["again"] = model["cell"]
    others, generators = param_groups(model, 0.1, 0.01, weight_decay=0.5, generator_weight_decay=0.0, betas=(0.8, 0.9))
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[p] for p in generators["params"]} == {
        "flow.divergence_scale_l0",
        "flow.divergence_scale_l1",
        "flow.field_l0",
        "flow.field_l1",
        "flow.mesh.log_b",
        "flow.mesh.log_w",
        "cell.field",
        "ours.parametrizations.weight.original",
        "torchs.parametrizations.weight.original",
    }
    assert len(others["params"]) + len(generators["params"]) == len(names)
    assert (others["lr"], others["weight_decay"]) == (0.1, 0.5)
    assert (generators["lr"], generators["weight_decay"], generators["betas"]) == (0.01, 0.0, (0.8, 0.9))
    torch.optim.AdamW([others, generators])
    assert [group["lr"] for group in param_groups(nn.Linear(2, 2), 0.1, 0.01)] == [0.1]


@pytest.mark.parametrize("kind", [vfrnn.InputFieldRNN, vfrnn.InputFieldRNNCell])
def test_what_a_field_gets_from_the_input_is_an_input_weight(kind):
    mesh = vfrnn.LatentMesh.random(4, cells=3, learn=("G",))
    model = kind(2, 4, mesh=mesh)
    others, generators = param_groups(model, 0.1, 0.01)
    names = {parameter: name.removesuffix("_l0") for name, parameter in model.named_parameters()}
    assert {names[p] for p in others["params"]} == {"weight_ih", "bias", "field_input_weight", "beta"}
    assert {names[p] for p in generators["params"]} == {"field", "divergence_scale", "mesh.free_G"}


def test_a_step_moves_each_group_by_its_rate():
    """One step of plain gradient descent: p - lr (gradient + decay p), with the group's rate and decay."""
    model = nn.Sequential(vfrnn.VFRNN(3, 4, dtype=torch.float64))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(param_groups(model, 0.1, 0.01, weight_decay=0.5, generator_weight_decay=0.0))
    model(torch.randn(5, 2, 3, dtype=torch.float64))[0].square().sum().backward()
    optimizer.step()
    for name, p in model.named_parameters():
        slow = "field" in name or "divergence_scale" in name
        lr, decay = (0.01, 0.0) if slow else (0.1, 0.5)
        torch.testing.assert_close(p.detach(), start[name] - lr * (p.grad + decay * start[name]), rtol=1e-14, atol=0)


def test_parameters_and_groups_are_listed_once_and_never_empty():
    cell = vfrnn.OrthogonalRNNCell(3, 4)
    groups = param_groups(nn.ModuleList([cell, cell]), 0.1, 0.01)
    assert [len(group["params"]) for group in groups] == [3, 1]
    only = nn.ParameterList(list(cell.parameters()))
    assert [len(group["params"]) for group in param_groups(only, 0.1, 0.01)] == [4]
    assert param_groups(nn.Identity(), 0.1, 0.01) == []
    assert "weight_decay" not in groups[0]


def test_what_is_no_module_is_named():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got list"):
        param_groups([vfrnn.VFRNN(3, 4)], 0.1, 0.01)


def test_an_option_of_the_generators_alone_is_theirs_alone():
    others, generators = param_groups(vfrnn.VFRNN(3, 4), 0.1, 0.01, generator_momentum=0.9)
    assert "momentum" not in others
    assert generators["momentum"] == 0.9
