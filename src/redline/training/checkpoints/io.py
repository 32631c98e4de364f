"""How a checkpoint is written and read: complete or not at all, beside training, and without running code."""

import hashlib
import json
import logging
import pickle
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins import CheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor import empty as empty_shards

from redline import over_ranks
from redline.files import atomic_write

_PLAIN, _DIGESTS = "plain.pt", "digests.json"  # in the folder of a sharded one, beside torch's files
_DIGEST_SIZE = 16  # bytes
_PART = 1 << 24  # bytes that are read at a time

log = logging.getLogger(__name__)


class AtomicCheckpointIO(CheckpointIO):
    """One file, whose last bytes are a digest of the rest; or where ranks have parts of its tensors, a folder
    that a link names, with a file of each rank (torch.distributed.checkpoint) and their digests.

    A copy on the host is written while training goes on; a checkpoint that is asked for before that is done
    waits. One that cannot be written for want of room is a warning, and the one before stays.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._group: dist.ProcessGroup | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.wait()
        tensors = list[Tensor]()
        copied = apply_to_collection(checkpoint, Tensor, lambda its: _seen(tensors, _on_host(its)))
        write = _write_file
        if any(map(over_ranks.is_sharded, tensors)):
            # Not the training's own, whose messages would be mixed with these.
            self._group = self._group or dist.new_group(backend="gloo")
            group = self._group

            def write(checkpoint: dict[str, Any], path: Path) -> None:
                _write_folder(checkpoint, path, group)

        self._thread = self._thread or ThreadPoolExecutor(1, "checkpoint")
        self._writing = self._thread.submit(_told, write, copied, Path(path))

    def wait(self) -> None:
        """Until what was saved is on disk. Raises what was wrong with it, but for a system's error."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def teardown(self) -> None:
        self.wait()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """On the host, with whole tensors."""
        return read_sharded(Path(path)) if Path(path).is_dir() else read_plain(Path(path), mmap=False)

    def remove_checkpoint(self, path: Any) -> None:
        """And what a write that was killed has left."""
        Path(path).unlink(missing_ok=True)
        _remove_others(Path(path))


def read_plain(path: Path, mmap: bool = True) -> dict[str, Any]:
    """All but what ranks have parts of, in whose place are tensors without values.

    Raises what torch.load does: plain values and tensors only, since a pickle may run any code.
    """
    if path.is_dir():
        _SafeReader(path).read_metadata()
        state = torch.load(path / _PLAIN, weights_only=True, map_location="cpu")["checkpoint"]
    else:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    assert isinstance(state, dict)
    return state


def read_sharded(path: Path, mesh: DeviceMesh | None = None) -> dict[str, Any]:
    """Of a folder: with whole tensors, or this rank's parts on ``mesh``, which may be of another size."""
    saved = torch.load(path / _PLAIN, weights_only=True, map_location="cpu")
    axes, targets = iter(saved["axes"]), list[Tensor]()

    def target(its: Tensor) -> Tensor:
        if not its.is_meta:
            return its
        axis = next(axes)
        if mesh is None:
            return _seen(targets, torch.empty(its.shape, dtype=its.dtype))
        parts = empty_shards(*its.shape, dtype=its.dtype, device_mesh=mesh, placements=[Shard(axis)])
        return _seen(targets, parts)

    checkpoint = apply_to_collection(saved["checkpoint"], Tensor, target)
    state = {str(number): its for number, its in enumerate(targets)}
    dcp.load(state, storage_reader=_SafeReader(path), no_dist=mesh is None)
    assert isinstance(checkpoint, dict)
    return checkpoint


def is_whole(path: Path) -> bool:
    """Whether the digests of the file or folder are right."""
    if path.is_dir():
        try:
            digests = json.loads((path / _DIGESTS).read_bytes())
            return all(_digest(path / name) == its for name, its in digests.items())
        except (FileNotFoundError, ValueError):
            return False
    digest, left = _new_digest(), path.stat().st_size - _DIGEST_SIZE
    with path.open("rb") as file:
        while left > 0:
            part = file.read(min(left, _PART))
            digest.update(part)
            left -= len(part)
        return digest.digest() == file.read()


def _seen(tensors: list[Tensor], its: Tensor) -> Tensor:
    tensors.append(its)
    return its


def _on_host(its: Tensor) -> Tensor:
    its = its.detach()
    return its.clone() if its.device.type == "cpu" else its.cpu()


def _told(write: Callable[[dict[str, Any], Path], None], checkpoint: dict[str, Any], path: Path) -> None:
    try:
        write(checkpoint, path)
    except (OSError, RuntimeError, CheckpointException) as error:
        if (why := _of_the_system(error)) is None:
            raise
        if over_ranks.is_first():
            log.warning("%s: cannot be written (%s); training goes on without this checkpoint", path, why)


def _of_the_system(error: BaseException | None) -> OSError | None:
    """What torch, which has its own words for it, failed for."""
    if isinstance(error, CheckpointException):
        found = [_of_the_system(its) for its, _ in error.failures.values()]
        return None if None in found else found[0]
    return error if error is None or isinstance(error, OSError) else _of_the_system(error.__context__)


def _write_file(checkpoint: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_others(path)
    with atomic_write(path) as file:
        hashing = _Hashing(file)
        torch.save(checkpoint, hashing)  # type: ignore[arg-type]
        file.write(hashing.digest.digest())


def _write_folder(checkpoint: dict[str, Any], path: Path, group: dist.ProcessGroup) -> None:
    """Called by all ranks of ``group``."""
    is_first = dist.get_rank(group) == 0
    held = [uuid.uuid4().hex]
    dist.broadcast_object_list(held, 0, group)
    folder = path.with_name(f"{path.name}.{held[0]}.shards")
    shards = list[Tensor]()
    plain = apply_to_collection(checkpoint, DTensor, lambda its: _placeholder(_seen(shards, its)))
    state = {str(number): its for number, its in enumerate(shards)}
    try:
        dcp.save(state, storage_writer=filesystem.FileSystemWriter(folder), process_group=group)
        own = {its.name: _digest(its) for its in folder.glob(f"__{dist.get_rank(group)}_*")}
        digests = [dict[str, str]()] * dist.get_world_size(group) if is_first else None
        dist.gather_object(own, digests, 0, group)
        if digests is not None:
            _complete(folder, path, plain, shards, digests)
    except BaseException:
        if is_first:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _complete(
    folder: Path, path: Path, plain: dict[str, Any], shards: list[Any], digests: list[dict[str, str]]
) -> None:
    """By rank 0, once the others have written theirs."""
    axes = [its.placements[0].dim for its in shards]
    with atomic_write(folder / _PLAIN) as file:
        torch.save({"checkpoint": plain, "axes": axes}, file)
    together = {name: its for own in digests for name, its in own.items()}
    together |= {name: _digest(folder / name) for name in (_PLAIN, ".metadata")}
    with atomic_write(folder / _DIGESTS) as file:
        file.write(json.dumps(together).encode())
    link = folder.with_suffix(".link")
    link.symlink_to(folder.name)
    link.replace(path)
    _remove_others(path, folder)


def _placeholder(its: Tensor) -> Tensor:
    return torch.empty(its.shape, dtype=its.dtype, device="meta")


def _remove_others(path: Path, kept: Path | None = None) -> None:
    """What belongs to earlier checkpoints of this name."""
    for other in path.parent.glob(f"{path.name}.*"):
        if other.is_dir() and not other.is_symlink() and other != kept:
            shutil.rmtree(other, ignore_errors=True)
        elif other != kept:
            other.unlink(missing_ok=True)


class _SafeReader(filesystem.FileSystemReader):
    """Torch's own unpickles the file of shapes and places as it comes, and so runs what a stranger put there;
    it also unpickles what is no tensor, which none of ours holds.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            found = _Unpickler(file).load()
        if not isinstance(found, metadata.Metadata):
            raise pickle.UnpicklingError(f"{type(found)} is not what a checkpoint holds")
        return found


class _Unpickler(pickle.Unpickler):
    allowed = (
        metadata.Metadata,
        metadata.TensorStorageMetadata,
        metadata.TensorProperties,
        metadata.ChunkStorageMetadata,
        metadata.MetadataIndex,
        metadata.StorageMeta,
        metadata._MEM_FORMAT_ENCODING,
        filesystem._StorageInfo,
        torch.Size,
        torch.serialization._get_layout,
    )

    def find_class(self, module: str, name: str) -> Any:
        by_name = {(its.__module__, its.__qualname__): its for its in self.allowed}
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if (module, name) in (("pathlib", "PosixPath"), ("pathlib", "WindowsPath")):
            return Path
        if (module, name) not in by_name:
            raise pickle.UnpicklingError(f"{module}.{name} is not what a checkpoint holds")
        return by_name[module, name]


class _Hashing:
    """A file that is written to from its beginning to its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, _new_digest()

    def write(self, part: bytes) -> int:
        self.digest.update(part)
        return self.file.write(part)

    def flush(self) -> None:
        self.file.flush()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _new_digest).hexdigest()


def _new_digest() -> Any:
    return hashlib.blake2b(digest_size=_DIGEST_SIZE)
