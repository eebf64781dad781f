"""A script as a user writes it: `make lint` holds its types to the strict rules of mypy and pyright, a test runs it."""

import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import vfrnn

mesh: vfrnn.LatentMesh = vfrnn.LatentMesh.grid(4, 4)
rnn = vfrnn.VFRNN(28, 16, num_layers=2, mesh=mesh, bidirectional=False)
x = torch.randn(100, 32, 28)
output, h_n = rnn(x, dt=torch.rand(100))
last: torch.Tensor = output[-1] + h_n[-1]
y, state = rnn.step(x[0], dt=0.5)
packed: PackedSequence = pack_sequence([torch.randn(5, 28), torch.randn(3, 28)])
packed_output, _ = vfrnn.RNN(28, 16)(packed)
M: torch.Tensor = rnn.step_matrix(1)
model = torch.nn.Sequential(torch.nn.RNN(28, 64))
print(vfrnn.convert(model, to="orthogonal"))
optimizer = torch.optim.Adam(vfrnn.param_groups(rnn, lr=1e-3, generator_lr=1e-4))
Q: torch.Tensor = vfrnn.skew_expm(torch.zeros(3, 3), 0.5)
S, delta = vfrnn.field_generator(mesh, torch.zeros(mesh.m, mesh.d))
moved: torch.Tensor = vfrnn.field_flow(torch.zeros(2, 16), torch.zeros(mesh.m, mesh.d), mesh, 0.1)
vfrnn.parametrizations.orthogonal(torch.nn.Linear(3, 3))
route: str = vfrnn.plan(512, 64, torch.bfloat16).route
found = vfrnn.inspect(rnn, x)
