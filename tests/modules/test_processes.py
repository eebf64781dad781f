"""Other processes and threads: forked children after use, DataLoader workers, and the number of threads asked for."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

import vfrnn

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/task")
SETUP = """
    import os
    import torch, vfrnn

    def train(network, T, B):
        torch.manual_seed(0)
        output, _ = network(torch.randn(T, B, 3))
        output.square().sum().backward()
        return output.detach()

    def build():
        torch.manual_seed(0)
        return vfrnn.VFRNN(3, 300)  # wide enough for the team of threads that share one sample
"""


def run(code, **environment):
    """What a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(SETUP) + textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


@LINUX
@pytest.mark.slow
def test_the_number_of_threads_is_honoured():
    code = """
        torch.set_num_threads(1)
        network = build()
        torch.set_num_threads(int(os.environ["THREADS"]))
        before = len(os.listdir("/proc/self/task"))
        with torch.no_grad():
            for T, B in ((40, 1), (5, 64)):
                network(torch.randn(T, B, 3))
        print(len(os.listdir("/proc/self/task")) - before, network(torch.ones(20, 1, 3))[0].sum().item())
    """
    results = [run(code, THREADS=str(threads)) for threads in (1, 3)]
    # In a pool of k threads the calling one works too.
    assert [int(added) for added, _ in results] == [0, 2]
    assert float(results[0][1]) == pytest.approx(float(results[1][1]), rel=1e-4)


def test_a_forked_child_computes_after_use():
    """With one thread, by itself: OpenMP's others do not survive a fork, and a parallel loop would wait for them."""
    code = """
        torch.set_num_threads(2)
        network = build()
        expected = train(network, 40, 1), train(network, 5, 64)
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                same = all(torch.allclose(a, train(network, *size), atol=1e-4)
                           for a, size in zip(expected, ((40, 1), (5, 64))))
                os._exit(0 if same else 3)
            children.append(child)
        print(*(os.waitpid(child, 0)[1] for child in children))
        train(network, 40, 1)
    """
    assert run(code) == ["0", "0"]


@pytest.mark.slow
def test_a_dataloader_whose_workers_use_the_network():
    code = """
        from torch.utils.data import DataLoader, Dataset

        network = build()
        train(network, 40, 1)

        class States(Dataset):
            def __len__(self):
                return 4

            def __getitem__(self, k):
                with torch.no_grad():
                    return network(torch.full((40, 3), 0.1 * k))[1][0]

        dataset = States()
        expected = torch.stack([dataset[k] for k in range(4)])
        loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork")
        for _ in range(2):
            print(torch.allclose(torch.cat(list(loader)), expected, atol=1e-5))
            train(network, 40, 1)
    """
    assert run(code) == ["True"] * 2


def test_threads_share_a_network():
    network = vfrnn.VFRNN(3, 300)
    x, same = torch.randn(4, 20, 2, 3), [0] * 4
    with torch.no_grad():
        expected = [network(sequences)[0] for sequences in x]

    def use(k):
        with torch.no_grad():
            for _ in range(5):
                same[k] += torch.allclose(network(x[k])[0], expected[k], atol=1e-5)

    users = [threading.Thread(target=use, args=(k,)) for k in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert same == [5] * 4


@pytest.mark.slow
def test_a_spawned_process_gets_the_network():
    network, x = vfrnn.VFRNN(3, 4), torch.randn(5, 3)
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_apply, args=(network, x, results))
    process.start()
    result = results.get(timeout=100)
    process.join(100)
    torch.testing.assert_close(torch.tensor(result), network(x)[0].detach())


def _apply(network, x, results):
    results.put(network(x)[0].tolist())
