"""Characters: the text, its blocks, and what a model scores that knows the last character."""

import itertools
import math
import random
import sys
from dataclasses import replace

import pytest
import torch

from tests.tasks.cases import task_options, training_options
from vfrnn.tasks import Characters, characters
from vfrnn.tasks.characters import language_reference
from vfrnn.tasks.training import Training

pytest.importorskip("pydoc_data.topics", reason="this Python comes without its language reference")


@pytest.fixture
def task(monkeypatch):
    """Of a made-up text in which no ten characters come twice."""
    letters = random.Random(0)
    monkeypatch.setattr(characters, "language_reference", lambda: "".join(letters.choices("abcdefgh", k=3000)))
    return Characters(task_options(batch_size=32, length=20))


def text_of(task, codes):
    return "".join(task.alphabet[code] for code in codes)


def test_the_text_is_prose_of_which_nothing_comes_twice():
    task, text = Characters(task_options()), language_reference()
    paragraphs = text.split("\n\n")
    assert len(text) > 100_000
    assert len(set(paragraphs)) == len(paragraphs)
    assert text.lower().count(" the ") > 1000
    assert "".join(text_of(task, task.blocks[name]) for name in ("train", "validation", "test")) == text
    assert 3 < task.baseline < 4
    assert task.about.startswith(f"{len(text)} characters, {len(set(text))} of them different")


def test_the_target_is_the_next_character(task):
    x, target = task.evaluation_batch("validation")
    codes = x.argmax(-1)
    assert torch.equal(x.sum(-1), torch.ones_like(codes, dtype=torch.float32))
    assert torch.equal(codes[1:], target[:-1])
    assert torch.equal(codes[0, 1:], target[-1, :-1])  # one sequence begins where the one before ends
    assert text_of(task, codes.T.flatten()) == text_of(task, task.blocks["validation"])[: codes.numel()]


def test_batches_are_of_random_places_of_the_training_block(task):
    train = text_of(task, task.blocks["train"])
    generator = torch.Generator().manual_seed(0)
    batches = [x.argmax(-1) for _ in range(10) for x, _ in task.training_batches(generator)]
    assert [codes.shape for codes in batches] == [(20, 32)] * 20  # of two batches an epoch
    places = [train.index(text_of(task, column)) for codes in batches for column in codes.T]
    assert len(set(places)) > 200
    assert min(places) < 50
    assert max(places) > len(train) - 70


def test_guessing_from_the_last_character_scores_the_baseline(task):
    """Counted once more, in a dictionary."""
    train = text_of(task, task.blocks["train"])
    counts = {(a, b): 0 for a in task.alphabet for b in task.alphabet}
    for pair in itertools.pairwise(train):
        counts[pair] += 1
    total = len(train) + len(task.alphabet)
    share = {b: (train.count(b) + 1) / total for b in task.alphabet}
    table = [
        [(counts[a, b] + share[b]) / (sum(counts[a, c] for c in task.alphabet) + 1) for b in task.alphabet]
        for a in task.alphabet
    ]
    x, target = task.evaluation_batch("test")
    guess = torch.tensor(table, dtype=torch.float64).log()[x.argmax(-1)]
    assert task.metric(guess, target) == pytest.approx(task.baseline, rel=1e-9)
    assert task.metric(torch.zeros_like(guess), target) == pytest.approx(math.log2(len(task.alphabet)))


def test_a_length_that_leaves_no_sequence_is_refused():
    with pytest.raises(
        ValueError, match=r"length must be less than \d+, the characters of the shortest block .* 10000000"
    ):
        Characters(task_options(length=10_000_000))


def test_a_python_without_the_text_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(RuntimeError, match=r"characters needs Python's module pydoc_data\.topics"):
        Characters(task_options())


def test_another_text_is_no_continuation(tmp_path, monkeypatch):
    options = replace(training_options("characters", ("gru",), epochs=1), task_options=task_options())
    Training(options).save(tmp_path)
    topics = {"a": "another text. " * 20}
    monkeypatch.setattr("pydoc_data.topics.topics", topics)
    with pytest.raises(RuntimeError, match=r"characters must hold the data that the run began with"):
        Training.resume(tmp_path)
