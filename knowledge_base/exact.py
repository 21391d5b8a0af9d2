"""Cosines of a query with every vector, where no index of the database can be used. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from knowledge_base.pieces import PieceKind
from knowledge_base.stored import FloatArray, Hit


@dataclass(frozen=True, slots=True)
class ExactVectors:
    """``keys``, shape (n, 4): ids of piece, document, chunk, and the kind; ``vectors``: (n, dimensions), length 1."""

    keys: npt.NDArray[np.int64]
    vectors: FloatArray

    @classmethod
    def of(
        cls, keys: Sequence[tuple[int, int, int, int]], vectors: Sequence[Sequence[float] | FloatArray]
    ) -> ExactVectors:
        """From one row of keys and one vector for each piece."""
        rows = np.array(vectors, dtype=np.float32) if vectors else np.zeros((0, 0), dtype=np.float32)
        return cls(np.array(keys, dtype=np.int64).reshape(len(keys), 4), rows)

    def nearest(self, vector: FloatArray, limit: int, within: Sequence[int] | None) -> list[Hit]:
        """The highest cosines, best first, ties by id; only pieces of the documents ``within``, if given."""
        rows = np.arange(len(self.keys)) if within is None else self._rows(within)
        cosines = self.vectors[rows] @ vector if len(rows) else np.zeros(0, dtype=np.float32)
        if len(rows) > limit:
            kept = np.argpartition(-cosines, limit - 1)[:limit]
            rows, cosines = rows[kept], cosines[kept]
        order = np.lexsort((self.keys[rows, 0], -cosines))
        return self._hits(rows[order], cosines[order])

    def cosines(self, vector: FloatArray, documents: Sequence[int]) -> list[Hit]:
        """Every piece of ``documents``."""
        rows = self._rows(documents)
        return self._hits(rows, self.vectors[rows] @ vector) if len(rows) else []

    def _rows(self, documents: Sequence[int]) -> npt.NDArray[np.int64]:
        return np.flatnonzero(np.isin(self.keys[:, 1], list(documents)))

    def _hits(self, rows: npt.NDArray[np.int64], cosines: Iterable[float]) -> list[Hit]:
        return [
            Hit(int(piece), int(document), int(chunk), PieceKind(int(kind)), float(cosine))
            for (piece, document, chunk, kind), cosine in zip(self.keys[rows], cosines, strict=True)
        ]
