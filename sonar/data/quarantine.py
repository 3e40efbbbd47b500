"""The report of what was left out: file by file with reason and hash, and what each stratum has lost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import NamedTuple

from sonar.data.audio_errors import Quarantined
from sonar.data.manifest import Clip, beside_manifest
from sonar.data.storage import write_bytes


class Loss(NamedTuple):
    """What is left of a stratum and what is not.

    Attributes:
        clips: that are good.
        bad: files that are left out.
        hours: of the good clips.
        hours_lost: of the bad files that declare a length.
        unknown_length: bad files that declare none.
    """

    clips: int
    bad: int
    hours: float
    hours_lost: float
    unknown_length: int


def stratum_name(corpus: str, labels: Sequence[str]) -> str:
    """`corpus/label`, or the corpus alone."""
    return "/".join([corpus, ";".join(labels)] if labels else [corpus])


def losses(clips: Sequence[Clip], quarantine: Sequence[Quarantined]) -> dict[str, Loss]:
    """By stratum, in order of their names."""
    empty = Loss(0, 0, 0.0, 0.0, 0)
    found: dict[str, Loss] = {}
    for clip in clips:
        name = stratum_name(clip.corpus, clip.labels)
        one = found.get(name, empty)
        found[name] = one._replace(clips=one.clips + 1, hours=one.hours + clip.duration_s / 3600)
    for bad in quarantine:
        one = found.get(bad.stratum, empty)
        found[bad.stratum] = one._replace(
            bad=one.bad + 1,
            hours_lost=one.hours_lost + (bad.seconds or 0.0) / 3600,
            unknown_length=one.unknown_length + (bad.seconds is None),
        )
    return dict(sorted(found.items()))


def total(strata: dict[str, Loss]) -> Loss:
    """The sum of all strata."""
    return Loss(*(sum(column) for column in zip(*strata.values(), strict=True))) if strata else Loss(0, 0, 0.0, 0.0, 0)


def write_quarantine(clips: Sequence[Clip], quarantine: Sequence[Quarantined], manifest: str) -> list[str]:
    """Write `.quarantine.json` (totals, strata, files) and `.csv` (files) beside a manifest; earlier ones are replaced.

    Returns:
        The two paths.
    """
    strata = losses(clips, quarantine)
    content = {
        "total": total(strata)._asdict(),
        "strata": {name: loss._asdict() for name, loss in strata.items() if loss.bad},
        "files": [bad._asdict() for bad in quarantine],
    }
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, Quarantined._fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(bad._asdict() for bad in quarantine)
    paths = [beside_manifest(manifest, f".quarantine.{kind}") for kind in ("json", "csv")]
    for path, written in zip(paths, (json.dumps(content, indent=1) + "\n", text.getvalue()), strict=True):
        write_bytes(path, written.encode())
    return paths
