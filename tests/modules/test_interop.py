"""What users already run around a model: Lightning, Accelerate, TensorBoard. Skipped where a package is absent."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import vfrnn
from vfrnn.parametrizations import orthogonal, rebase

LAYERS = [vfrnn.RNN, vfrnn.OrthogonalRNN, vfrnn.VFRNN]


class Classifier(nn.Module):
    """A recurrent layer, an orthogonal readout of its last state, and classes."""

    def __init__(self, layer):
        super().__init__()
        self.rnn, self.readout = layer(3, 8, batch_first=True), orthogonal(nn.Linear(8, 4))

    def forward(self, x):
        return self.readout(self.rnn(x)[1][0])


def loader():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 5, 3, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum((1, 2)) > 0).long()), batch_size=4)


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def optimizer_of(model):
    return torch.optim.Adam(vfrnn.param_groups(model, lr=1e-2, generator_lr=1e-3))


def trained(model):
    """A copy of the model after a plain PyTorch epoch."""
    model = copy.deepcopy(model)
    optimizer = optimizer_of(model)
    for batch in loader():
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    return model


def assert_same_parameters(model, expected):
    for (name, p), q in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name)


# Lightning uses deprecated functions itself; warnings that it causes here stay errors.
@pytest.mark.filterwarnings("ignore:::lightning")
@pytest.mark.parametrize("layer", LAYERS)
def test_lightning_trains_saves_and_loads(layer, tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Classifier(layer)

        def training_step(self, batch, _):
            return loss_of(self.model, batch)

        def on_train_batch_end(self, *_):
            rebase(self.model)

        def configure_optimizers(self):
            return optimizer_of(self.model)

    module = Module()
    start = copy.deepcopy(module.model)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, loader())
    assert trainer.global_step == 4
    assert not torch.equal(module.model.rnn.weight_ih_l0, start.rnn.weight_ih_l0)
    W = module.model.readout.weight
    torch.testing.assert_close(W @ W.mT, torch.eye(4), rtol=0, atol=1e-5)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = Module.load_from_checkpoint(tmp_path / "model.ckpt")
    x = torch.randn(2, 5, 3)
    assert torch.equal(again.model(x), module.model(x))


@pytest.mark.parametrize("layer", LAYERS)
def test_accelerate_trains_to_the_same_parameters_as_plain_pytorch(layer, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    plain = Classifier(layer)
    expected = trained(plain)
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer, batches = accelerator.prepare(plain, optimizer_of(plain), loader())
    for batch in batches:
        optimizer.zero_grad()
        accelerator.backward(loss_of(model, batch))
        optimizer.step()
    assert_same_parameters(accelerator.unwrap_model(model), expected)
    accelerator.save_state(tmp_path)
    nn.init.zeros_(plain.rnn.weight_ih_l0)
    accelerator.load_state(tmp_path)
    assert_same_parameters(plain, expected)


# The graph is drawn by torch.jit.trace, which warns of every check of a shape.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("layer", LAYERS)
def test_tensorboard_writes_parameters_and_graph(layer, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    model = Classifier(layer)
    with SummaryWriter(str(tmp_path)) as writer:
        for step, batch in enumerate(loader()):
            loss = loss_of(model, batch)
            loss.backward()
            writer.add_scalar("loss", loss.item(), step)
        for name, parameter in model.named_parameters():
            writer.add_histogram(name, parameter)
            writer.add_histogram(f"{name}.grad", parameter.grad)
        writer.add_graph(model, torch.randn(2, 5, 3))
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = SimpleNamespace(**events.Tags())
    assert len(events.Scalars("loss")) == 4
    assert tags.graph
    assert {name for name, _ in model.named_parameters()} <= set(tags.histograms)
