"""Write a run's checkpoints, point to the last and the best, and remove the old ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import define, field, frozen

from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.checksums import crc32, drop_checksums, write_checksums
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.positional_io import storage_errors
from glm3.domain.tensors import Array, TensorSpec
from glm3.domain.training.checkpoint_names import BEST, LAST, CheckpointName, in_order, sink_position
from glm3.domain.training.output_tree import OutputTree
from glm3.domain.training.run_events import CheckpointSaved
from glm3.domain.training.run_state import RunState

__all__ = ["CheckpointKeeper", "SavePolicy", "pointed_file", "write_companions"]


@frozen(kw_only=True)
class SavePolicy:
    """How often to save, how many to keep, and what to write besides the training checkpoint."""

    every_steps: int
    keep: int
    network: bool = True
    trainable: bool = False


@define
class CheckpointKeeper:
    """Save the states of one run of one rank under ``prefix``.

    A checkpoint appears whole or not at all, and an older one goes only when the new one is on the disk of
    every rank, which ``wait`` waits for; the one that ``best`` points to stays. Its checksums lie beside
    each, for those who merge. ``companions`` (content by name) lie beside the checkpoints, ``model_files``
    beside the weights alone and make a model folder of theirs, ``trained_files`` beside what is trained.
    """

    tree: OutputTree
    store: CheckpointStore
    prefix: str
    sink_size: int
    policy: SavePolicy
    companions: Mapping[str, bytes] = field(factory=dict)
    model_files: Mapping[str, bytes] = field(factory=dict)
    trained_files: Mapping[str, bytes] = field(factory=dict)
    wait: Callable[[], None] = lambda: None
    saved_step: int = 0

    def name_of(self, step: int) -> CheckpointName:
        """Return the name of the checkpoint after ``step`` steps."""
        return CheckpointName(self.prefix, *sink_position(step, self.sink_size))

    def save(self, state: RunState) -> list[CheckpointSaved]:
        """Write a checkpoint and move the pointer ``last`` to it.

        Raises:
            StorageError: the file system refused; every earlier checkpoint is still there.
        """
        step, name = state.steps_done, self.name_of(state.steps_done)
        write_companions(self.tree.checkpoint, self.companions)
        saved = [self._write(self.tree.checkpoint / name.file_name, state.tensors, step)]
        for wanted, folder, what, files in (
            (self.policy.network, self.tree.network, "network", self.model_files),
            (self.policy.trainable, self.tree.trainable, "trainable_params", self.trained_files),
        ):
            if wanted:
                write_companions(folder, files)
                saved.append(self._write(folder / f"{self.prefix}-{what}.ckpt", state.weights, step))
        self.wait()
        self._point(LAST, name)
        self.saved_step = step
        self._remove_old()
        return saved

    def mark_best(self, step: int, score: float) -> None:
        """Point ``best`` to the checkpoint after ``step`` steps, which has been saved, and keep its score."""
        self._point(BEST, self.name_of(step), str(step), repr(score))

    def best(self) -> tuple[int, float] | None:
        """Return step and score of the best checkpoint of this run, of an earlier process too."""
        pointer = self.tree.checkpoint / BEST
        if pointed_file(pointer) is None:
            return None
        name, *numbers = pointer.read_text(encoding="utf-8").split("\n")
        parsed = CheckpointName.parse(name)
        if parsed is None or parsed.prefix != self.prefix or len(numbers) < 2:
            return None
        return int(numbers[0]), float(numbers[1])

    def _write(
        self, path: Path, tensors: Callable[[], Iterable[tuple[TensorSpec, Array]]], step: int
    ) -> CheckpointSaved:
        """Write a file; the tensors are gone through twice, so that only one need be in memory."""
        begun = time.monotonic()
        specs = [spec for spec, _ in tensors()]
        sums: dict[str, int] = {}
        drop_checksums(path)
        with self.store.create(path, specs) as writer:
            for spec, array in tensors():
                writer.write(spec.name, array)
                sums[spec.name] = crc32(array)
        write_checksums(path, sums)
        return CheckpointSaved(
            step=step,
            path=path,
            nbytes=sum(spec.nbytes for spec in specs),
            seconds=time.monotonic() - begun,
        )

    def _point(self, pointer: str, name: CheckpointName, *more: str) -> None:
        with staged_file(self.tree.checkpoint / pointer) as place:
            write_durably(place, "".join(f"{line}\n" for line in (name.file_name, *more)).encode())

    def _remove_old(self) -> None:
        folder = self.tree.checkpoint
        best = pointed_file(folder / BEST)
        with storage_errors(folder):
            names = in_order(path.name for path in folder.iterdir())
            own = [folder / name.file_name for name in names if name.prefix == self.prefix]
            for path in own[: -self.policy.keep]:
                if path != best:
                    drop_checksums(path)
                    path.unlink(missing_ok=True)


def pointed_file(pointer: Path) -> Path | None:
    """Return the file that a pointer names, or None if there is no pointer or no such file."""
    if not pointer.is_file():
        return None
    first = pointer.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    path = pointer.parent / Path(first.strip()).name
    return path if path.is_file() else None


def write_companions(folder: Path, companions: Mapping[str, bytes]) -> None:
    """Write small files that are not there already.

    Raises:
        StorageError: the file system refused.
    """
    for name, content in companions.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            with staged_file(path, len(content)) as place:
                write_durably(place, content)
