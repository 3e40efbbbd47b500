"""The mixture of one trial: drawn from the shared embeddings, and written down clip by clip."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sonar.data import sampling
from sonar.data.manifest import SCHEMA
from sonar.data.sampling import SamplingConfig, draw_mixture
from sonar.data.stream import ClipStore
from sonar.files import write_whole_file
from sonar.search.base_codes import kept_base_codes
from sonar.search.embeddings import read_embeddings
from sonar.search.prepare import Prepared
from sonar.search.ranking import kept_ranking
from sonar.train.adapt import Mixture

MIXTURE_FILE = "mixture.parquet"
MIXTURE_SCHEMA = pa.schema([*SCHEMA, ("source", pa.string()), ("stratum", pa.int64())])


class DrawnMixture(NamedTuple):
    """Rows of the stores to train on, the share of replay in every batch, and the draw behind them."""

    mixture: Mixture
    replay_ratio: float
    draw: sampling.Mixture


def read_mixture(config: SamplingConfig, prepared: Prepared) -> DrawnMixture:
    """Draw the mixture of new and prior clips of a trial (TRSS, docs/method.md step 1).

    Raises:
        FileNotFoundError: shards or embeddings are not there.
        ValueError: the mixture asked for cannot be drawn.
    """
    stores = ClipStore(prepared.new_shards), ClipStore(prepared.prior_shards)
    new, prior = read_embeddings(Path(prepared.embeddings), stores)
    draw = draw_mixture(new.pool, prior.pool, config, kept_ranking(Path(prepared.embeddings)))
    mixture = Mixture(
        new=stores[0],
        new_index=new.rows[draw.new_index],
        prior=stores[1],
        prior_index=prior.rows[draw.prior_index],
        pool_index=prior.rows,
        base_codes=kept_base_codes(Path(prepared.embeddings)),
    )
    return DrawnMixture(mixture, draw.replay_ratio, draw)


def write_mixture(drawn: DrawnMixture, path: Path) -> None:
    """The drawn clips as a Parquet file, whole or absent: a manifest's columns, `source` (new or replay), `stratum`.

    Rows come in the order of the draw; audio paths are absolute; strata are those of `sampling.Mixture`.
    """
    sides = (
        ("new", drawn.mixture.new, drawn.mixture.new_index, drawn.draw.new_stratum),
        ("replay", drawn.mixture.prior, drawn.mixture.prior_index, drawn.draw.prior_stratum),
    )
    rows = [
        clip._asdict() | {"source": source, "stratum": int(stratum)}
        for source, store, index, strata in sides
        for clip, stratum in zip(store.clips.take(index), strata, strict=True)
    ]
    table = pa.Table.from_pylist(rows, MIXTURE_SCHEMA)
    write_whole_file(path, lambda file: pq.write_table(table, file))
