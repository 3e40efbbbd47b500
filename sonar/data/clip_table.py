"""Clips as columns: a sequence of `Clip` that holds no Python object per clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa

from sonar.data.manifest import SCHEMA, Clip

_ROWS_AT_A_TIME = 4096


class ClipTable(Sequence[Clip]):
    """The rows of an arrow table, made into clips when they are asked for.

    Over a memory-mapped file it costs no memory of the process: 1 M clips as Python objects take 1 GB and more. Who
    needs one field of many clips takes its `column`.
    """

    def __init__(self, table: pa.Table) -> None:
        """`table` has a manifest's columns; others are left out."""
        self._table = table.select(Clip._fields)

    @classmethod
    def from_clips(cls, clips: Iterable[Clip]) -> ClipTable:
        """The same clips as columns."""
        fields = zip(*clips, strict=True)
        columns = dict(zip(Clip._fields, fields, strict=False)) or dict.fromkeys(Clip._fields, ())
        return cls(pa.Table.from_pydict({name: list(values) for name, values in columns.items()}, SCHEMA))

    @property
    def table(self) -> pa.Table:
        """The columns of a manifest, in its order."""
        return self._table

    def column(self, name: str) -> pa.ChunkedArray:
        """One field of all clips."""
        return self._table[name]

    def take(self, rows: np.ndarray | Sequence[int]) -> ClipTable:
        """The clips of some rows, in their order."""
        return ClipTable(self._table.take(pa.array(rows, pa.int64())))

    def __len__(self) -> int:
        return self._table.num_rows

    @overload
    def __getitem__(self, row: int) -> Clip: ...

    @overload
    def __getitem__(self, row: slice) -> ClipTable: ...

    def __getitem__(self, row: int | slice) -> Clip | ClipTable:
        """A clip, or the clips of a slice."""
        if isinstance(row, slice):
            return self.take(range(len(self))[row])
        place = range(len(self))[row]  # an IndexError where there is none
        return _clip({name: self._table[name][place].as_py() for name in Clip._fields})

    def __iter__(self) -> Iterator[Clip]:
        for batch in self._table.to_batches(max_chunksize=_ROWS_AT_A_TIME):
            yield from map(_clip, batch.to_pylist())


def _clip(row: dict[str, Any]) -> Clip:
    return Clip(**row | {"labels": tuple(row["labels"])})
