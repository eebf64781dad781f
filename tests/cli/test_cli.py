"""The command line: its subcommands are entry points, and what goes wrong is one sentence."""

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from vfrnn import cli


def test_subcommands_are_found_and_listed(capsys):
    names = [entry.name for entry in cli.subcommands()]
    assert names == ["bench", "doctor", "inspect", "profile", "train", "warmup"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_help_does_not_wait_for_what_the_subcommands_compute_with():
    code = (
        "import atexit, sys, vfrnn.cli; atexit.register(lambda: print(sorted(sys.modules))); vfrnn.cli.main(['--help'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = result.stdout.splitlines()[-1]
    for module in ("matplotlib", "rich", "sklearn", "vfrnn.tasks", "vfrnn_bench.suite"):
        assert f"'{module}'" not in loaded


def test_another_distribution_may_add_a_subcommand(monkeypatch):
    class Hello:
        name = "hello"

        @staticmethod
        def load():
            def add_parser(commands):
                commands.add_parser("hello").set_defaults(run=lambda arguments: 7)

            return add_parser

    found = cli.entry_points
    monkeypatch.setattr(cli, "entry_points", lambda group: [*found(group=group), Hello])
    assert cli.main(["hello"]) == 7


def test_sources_that_were_never_installed_say_so(monkeypatch, capsys):
    monkeypatch.setattr(cli, "entry_points", lambda group: [])
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--task", "digits"])
    assert stop.value.code == 2
    assert "source tree that is not installed; install it, e.g. pip install -e ." in capsys.readouterr().err
    for option in ("--help", "--version"):
        with pytest.raises(SystemExit) as stop:
            cli.main([option])
        assert stop.value.code == 0
    assert "not installed" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RuntimeError("no device"), 1, "vfrnn doctor: no device"),
        (FileNotFoundError("no file"), 1, "vfrnn doctor: no file"),
        (KeyboardInterrupt(), 130, "vfrnn doctor: interrupted"),
    ],
)
def test_what_goes_wrong_is_one_sentence(error, code, message, monkeypatch, capsys):
    def fails(arguments):
        raise error

    monkeypatch.setattr("vfrnn.cli.doctor.run", fails)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == message + "\n"


def test_the_entry_points_are_those_of_this_package():
    modules = {entry.name: entry.module for entry in entry_points(group=cli.GROUP)}
    assert modules["train"] == "vfrnn.cli.train"
    assert modules["bench"] == "vfrnn_bench.cli.bench"


def test_python_m_vfrnn_runs():
    result = subprocess.run(
        [sys.executable, "-m", "vfrnn", "--version"], capture_output=True, text=True, env=os.environ, timeout=120
    )
    assert result.returncode == 0
    assert result.stdout.startswith("vfrnn ")


def test_who_reads_the_output_may_stop():
    code = (
        "import sys, vfrnn.cli as cli\n"
        "class Many:\n"
        "    name = 'many'\n"
        "    @staticmethod\n"
        "    def load():\n"
        "        run = lambda arguments: [print('line', flush=True) for _ in range(10**6)] and 0\n"
        "        return lambda commands: commands.add_parser('many').set_defaults(run=run)\n"
        "cli.subcommands = lambda: [Many]\n"
        "sys.exit(cli.main(['many']))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0
