"""torch's own descriptions of RNN and RNNCell (its `module_db`: inputs, references, errors), run on our classes."""

import copy
import functools
import pickle
import re

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils.rnn import PackedSequence

import vfrnn
from tests.cases import non_contiguous

pytest.importorskip("expecttest", reason="torch's descriptions of its modules import expecttest")
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

OURS = {torch.nn.RNN: vfrnn.RNN, torch.nn.RNNCell: vfrnn.RNNCell}
INFOS = {info.module_cls: info for info in module_db if info.module_cls in OURS}


def cases(theirs, dtype, training=True, requires_grad=False):
    """All inputs of a module, those with packed sequences too."""
    options = {"with_packed_sequence": True} if theirs is torch.nn.RNN else {}
    torch.manual_seed(1)
    return INFOS[theirs].module_inputs_func(
        INFOS[theirs], device="cpu", dtype=dtype, requires_grad=requires_grad, training=training, **options
    )


def construct(module_type, arguments, dtype, training=True):
    """The module, with the same parameters for every class."""
    torch.manual_seed(2)
    options = arguments.kwargs if "dtype" in arguments.kwargs else {**arguments.kwargs, "dtype": dtype}
    return module_type(*arguments.args, **options).train(training)


def call(module, arguments):
    return module(*arguments.args, **arguments.kwargs)


def tensors_of(value):
    """The tensors in arguments or results, flat."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    values = (*value.args, *value.kwargs.values()) if hasattr(value, "kwargs") else value
    return [tensor for part in values for tensor in tensors_of(part)]


def with_tensors(arguments, tensors):
    """The positional arguments with other tensors in them."""
    fresh = iter(tensors)
    return [a._replace(data=next(fresh)) if isinstance(a, PackedSequence) else next(fresh) for a in arguments.args]


COUNTS = {theirs: len(cases(theirs, torch.float32)) for theirs in OURS}
EVERY_INPUT = pytest.mark.parametrize(
    ("theirs", "k"),
    [pytest.param(theirs, k, id=f"{theirs.__name__}-{k}") for theirs in OURS for k in range(COUNTS[theirs])],
)
EVERY_DTYPE = pytest.mark.parametrize("dtype", INFOS[torch.nn.RNN].dtypes, ids=str)


@EVERY_INPUT
@EVERY_DTYPE
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients(theirs, k, dtype, training):
    results = []
    for module_type in (theirs, OURS[theirs]):
        case = cases(theirs, dtype, training, requires_grad=True)[k]
        module = construct(module_type, case.constructor_input, dtype, training)
        outputs = tensors_of(call(module, case.forward_input))
        torch.manual_seed(3)
        loss = sum((output * torch.randn_like(output)).sum() for output in outputs)
        leaves = [*tensors_of(case.forward_input), *module.parameters()]
        results.append([*outputs, *torch.autograd.grad(loss, leaves)])
    for our, their in zip(results[1], results[0], strict=True):
        # Two layers of five steps with sums of about ten terms: some tens of roundings.
        torch.testing.assert_close(our, their, rtol=200 * torch.finfo(dtype).eps, atol=200 * torch.finfo(dtype).eps)
        assert our.dtype == dtype


@pytest.mark.parametrize("theirs", OURS)
def test_reference(theirs):
    """Unbatched inputs are a batch of one (torch has no other reference; packed inputs have none)."""
    for case in cases(theirs, torch.float64):
        if not isinstance(case.forward_input.args[0], PackedSequence):
            module = construct(OURS[theirs], case.constructor_input, torch.float64)
            expected = case.reference_fn(module, *case.forward_input.args, **case.forward_input.kwargs)
            torch.testing.assert_close(call(module, case.forward_input), expected)


@EVERY_INPUT
def test_factory_kwargs(theirs, k):
    arguments = cases(theirs, torch.float64)[k].constructor_input
    for device, dtype in (("cpu", torch.float64), ("cpu", torch.bfloat16), ("meta", torch.float32)):
        module = OURS[theirs](*arguments.args, **arguments.kwargs, device=device, dtype=dtype)
        assert all(p.device.type == device and p.dtype == dtype for p in module.parameters())
    skipped = torch.nn.utils.skip_init(OURS[theirs], *arguments.args, **arguments.kwargs, dtype=torch.float64)
    assert all(p.device.type == "cpu" and p.dtype == torch.float64 for p in skipped.parameters())


@EVERY_INPUT
def test_repr(theirs, k):
    arguments = cases(theirs, torch.float32)[k].constructor_input
    their, our = (construct(module_type, arguments, torch.float32) for module_type in (theirs, OURS[theirs]))
    # torch's names no nonlinearity, or without quotation marks: it cannot be pasted
    name = arguments.kwargs.get("nonlinearity", arguments.args[3] if arguments.args[3:] else "tanh")
    assert re.sub(r", nonlinearity='?relu'?", "", repr(our)) == re.sub(", nonlinearity=relu", "", repr(their))
    assert ("nonlinearity='relu'" in repr(our)) == (name == "relu")


@EVERY_INPUT
def test_state_dict_and_copies(theirs, k, tmp_path):
    case = cases(theirs, torch.float32)[k]
    their, our = (
        construct(module_type, case.constructor_input, torch.float32) for module_type in (theirs, OURS[theirs])
    )
    # the same seed has drawn the same parameters
    for (name, value), (our_name, our_value) in zip(their.state_dict().items(), our.state_dict().items(), strict=True):
        assert name == our_name
        assert torch.equal(value, our_value)
    torch.save(our, tmp_path / "module.pt")
    fresh = OURS[theirs](*case.constructor_input.args, **case.constructor_input.kwargs)
    fresh.load_state_dict(their.state_dict())
    their.load_state_dict(our.state_dict())
    copies = (
        fresh,
        copy.deepcopy(our),
        pickle.loads(pickle.dumps(our)),
        torch.load(tmp_path / "module.pt", weights_only=False),
    )
    expected = tensors_of(call(our, case.forward_input))
    for same in copies:
        assert repr(same) == repr(our)
        assert all(map(torch.equal, tensors_of(call(same, case.forward_input)), expected))
        assert all(own is not other for own, other in zip(same.parameters(), our.parameters(), strict=True))


@EVERY_INPUT
def test_non_contiguous(theirs, k):
    results = []
    for layout in (torch.Tensor.contiguous, non_contiguous):
        case = cases(theirs, torch.float64)[k]
        module = construct(OURS[theirs], case.constructor_input, torch.float64)
        leaves = [layout(tensor).detach().requires_grad_() for tensor in tensors_of(case.forward_input)]
        outputs = tensors_of(module(*with_tensors(case.forward_input, leaves)))
        grad_outputs = [layout(torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t)) for t in outputs]
        results.append([*outputs, *torch.autograd.grad(outputs, [*leaves, *module.parameters()], grad_outputs)])
    torch.testing.assert_close(*results)


@EVERY_INPUT
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives(theirs, k, check):
    case = cases(theirs, torch.float64)[k]
    module = construct(OURS[theirs], case.constructor_input, torch.float64)
    names, parameters = zip(*module.named_parameters(), strict=True)
    inputs = [tensor.requires_grad_() for tensor in tensors_of(case.forward_input)]

    def function(*leaves):
        arguments = with_tensors(case.forward_input, leaves[: len(inputs)])
        state = dict(zip(names, leaves[len(inputs) :], strict=True))
        return tuple(tensors_of(torch.func.functional_call(module, state, tuple(arguments))))

    # fast mode compares one random direction of everything, as torch's own tests of its modules do
    assert check(function, (*inputs, *parameters), fast_mode=True, check_undefined_grad=False)


@EVERY_DTYPE
@pytest.mark.parametrize("theirs", OURS)
def test_errors(theirs, dtype):
    """torch's error inputs raise the same type with the same message, in theirs and in ours."""
    errors = INFOS[theirs].module_error_inputs_func(
        INFOS[theirs], device="cpu", dtype=dtype, requires_grad=False, training=False
    )
    assert errors
    for error in errors:
        arguments, raised = error.module_error_input, []
        for module_type in (theirs, OURS[theirs]):
            if error.error_on == ModuleErrorEnum.FORWARD_ERROR:
                module = construct(module_type, arguments.constructor_input, dtype)
                run = functools.partial(call, module, arguments.forward_input)
            else:
                run = functools.partial(construct, module_type, arguments.constructor_input, dtype)
            with pytest.raises(error.error_type) as caught:
                run()
            assert re.search(error.error_regex, str(caught.value))
            raised.append((caught.type, str(caught.value)))
        assert raised[0] == raised[1]
