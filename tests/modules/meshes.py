"""A mesh of every kind, with 6 nodes."""

from vfrnn import LatentMesh

MESHES = {
    "complete": lambda **options: LatentMesh.complete(6, **options),
    "random": lambda **options: LatentMesh.random(6, 5, 3, **options),
    "edges": lambda **options: LatentMesh.from_edges(6, [(0, 1), (3, 1), (5, 2)], **options),
    "grid": lambda **options: LatentMesh.grid(2, 3, **options),
}
