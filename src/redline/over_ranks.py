"""Numbers of a run that several processes share, the ranks: what each has becomes what all have together.

With one process each function returns its input and does not wait. With several, all ranks call it.
A sharded tensor is a `DTensor`: each rank holds a part of it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def size() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is rank 0, which alone tells the world."""
    return size() == 1 or dist.get_rank() == 0


def of_first(value: Any) -> Any:
    """That of rank 0, which is pickled."""
    if size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def any_of(flag: bool, device: torch.device) -> bool:
    return flag if size() == 1 else bool(largest(torch.tensor(float(flag), device=device)))


def largest(x: Tensor) -> Tensor:
    """Number by number."""
    if size() > 1:
        x = x.clone()
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def means(scalars: Sequence[Tensor]) -> list[Tensor]:
    """Of each."""
    if size() == 1:
        return list(scalars)
    together_N = torch.stack([its.float() for its in scalars])
    dist.all_reduce(together_N)
    return list(together_N.div_(size()).unbind())


def is_sharded(x: Tensor) -> bool:
    return isinstance(x, DTensor)


def shard(x: Tensor) -> Tensor:
    """This rank's part, to be changed in place."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def shard_like(x: Tensor, example: Tensor) -> Tensor:
    """This rank's part of ``x``, whole on each rank, where it has that part of ``example``."""
    if not isinstance(example, DTensor):
        return x
    here = DTensor.from_local(x, example.device_mesh, [Replicate()] * example.device_mesh.ndim)
    return here.redistribute(placements=example.placements).to_local()


def norms(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """The L2 norm of each, computed in ``dtype``; either all are sharded or none."""
    found = torch._foreach_norm([shard(its) for its in tensors], 2, dtype=dtype)
    if not any(map(is_sharded, tensors)):
        return tuple(found)
    assert all(map(is_sharded, tensors))
    squares_P = torch.stack(found).float().square()
    dist.all_reduce(squares_P)
    return squares_P.sqrt().unbind()
