"""Eight threads of Python that share modules: each finds what one thread alone finds. `make sanitize-threads` runs this
file with ThreadSanitizer looking on."""

import io
import subprocess
import sys
import sysconfig
import textwrap
import threading

import pytest
import torch

import vfrnn
from vfrnn import streaming

THREADS, ROUNDS = 8, 4


@pytest.fixture(autouse=True)
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def together(*works):
    """Each work(round) for all rounds, by a thread of its own, all at the same time."""
    failures, start = [], threading.Barrier(len(works))

    def run(work):
        try:
            start.wait(60)
            for k in range(ROUNDS):
                work(k)
        except BaseException as error:  # an assertion too must reach the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=250)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has its global lock")
def test_nothing_here_turns_the_global_lock_on():
    """Python does for a native module that does not say that it needs none."""
    code = """
        import sys, torch, vfrnn
        vfrnn.VFRNN(3, 8)(torch.randn(5, 2, 3))
        assert "vfrnn_kernels._host" in sys.modules and not sys._is_gil_enabled()
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], check=True)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def streamed(net, x):
    state, outputs = None, []
    for x_t in x:
        y, state = net.step(x_t, state)
        outputs.append(y)
    return torch.stack(outputs)


def gradients(net, x):
    output, _ = net(x)
    return torch.autograd.grad(output.square().sum(), [p for p in net.parameters() if p.requires_grad])


NETWORKS = {
    "VFRNN": lambda: vfrnn.VFRNN(3, 40, num_layers=2),
    "OrthogonalRNN": lambda: vfrnn.OrthogonalRNN(3, 300),  # wide enough that threads share one sample
    "InputFieldRNN": lambda: vfrnn.InputFieldRNN(3, 9, mesh=vfrnn.LatentMesh.random(9, cells=12, dim=2), substeps=9),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shared_network_in_all_that_it_does(name):
    """Sequences, gradients, streams, conversions, checkpoints, and the number of threads, which one of them changes."""
    torch.manual_seed(0)
    net, x = NETWORKS[name](), torch.randn(12, 2, 3)
    torch.set_num_threads(1)
    with torch.no_grad():
        expected, expected_stream = net(x)[0], streamed(net, x)
    expected_gradients = gradients(net, x)
    converted = name == "VFRNN" or name == "OrthogonalRNN"

    def sequence(_):
        with torch.no_grad():
            close(net(x)[0], expected)

    def differentiate(_):
        close(gradients(net, x), expected_gradients)

    def stream(_):
        with torch.no_grad():
            close(streamed(net, x), expected_stream)

    def convert(_):
        if converted:
            plain = vfrnn.convert(torch.nn.Sequential(net), to="torch").model
            with torch.no_grad():
                close(plain(x)[0], expected)

    def save_and_load(_):
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        other = NETWORKS[name]()
        other.load_state_dict(torch.load(file, weights_only=True))
        with torch.no_grad():
            close(other(x)[0], expected)

    def change_the_threads(k):
        torch.set_num_threads(1 + k % 3)
        sequence(k)

    together(sequence, differentiate, differentiate, stream, stream, convert, save_and_load, change_the_threads)


def test_more_streams_at_times_of_their_own_than_matrices_are_kept():
    torch.manual_seed(0)
    net, x = vfrnn.VFRNN(3, 20), torch.randn(2, 3)
    times = [[0.1 * (1 + (7 * thread + k) % 40) for k in range(60)] for thread in range(THREADS)]
    with torch.no_grad():
        expected = {dt: net.step(x, dt=dt)[0] for of_thread in times for dt in of_thread}

    def stream_of(thread):
        def stream(_):
            with torch.no_grad():
                for dt in times[thread]:
                    close(net.step(x, dt=dt)[0], expected[dt])

        return stream

    together(*map(stream_of, range(THREADS)))
    assert 1 <= len(streaming._kept[net].matrices) <= streaming._KEPT


def test_streams_while_parameters_change():
    """A stream that begins after the change has the new matrices."""
    torch.manual_seed(0)
    net, x, changed = vfrnn.VFRNN(3, 20), torch.randn(2, 3), threading.Event()

    def stream(k):
        with torch.no_grad():
            net.step(x)

    def change(k):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(0.9)
        changed.set()

    together(*[stream] * (THREADS - 1), change)
    assert changed.is_set()
    with torch.no_grad():
        close(net.step(x)[0], net(x.unsqueeze(0))[0][0])
