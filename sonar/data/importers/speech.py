"""Speech emotion: IEMOCAP, CREMA-D, RAVDESS, EMO-DB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sonar.data.importers.importer import Importer, ImportOptions, Listing, existing, held_out, published, with_notes
from sonar.data.importers.tables import counted, lines, parse_names
from sonar.data.listing import Listed

_SESSIONS = 5
_IEMOCAP_CLASSES = {"ang": "anger", "hap": "happiness", "exc": "happiness", "neu": "neutral", "sad": "sadness"}
_TURN = re.compile(r"\[[\d.]+ - [\d.]+\]\t(?P<name>(?P<dialogue>Ses0\d[FM]_\w+)_[FM]\d+)\t(?P<emotion>\w+)\t.*")
_CREMAD_CLASSES = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
_RAVDESS_CLASSES = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
_EMODB_CLASSES = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}


class _Turn(NamedTuple):
    session: int
    file: str
    emotion: str


def _turns(root: Path) -> Iterator[_Turn]:
    """What the evaluation files of the sessions that are there say, turn by turn."""
    existing(root, *(f"Session{number}/dialog/EmoEvaluation" for number in range(1, _SESSIONS + 1)))
    for session in range(1, _SESSIONS + 1):
        for report in sorted(root.glob(f"Session{session}/dialog/EmoEvaluation/Ses*.txt")):
            for match in filter(None, map(_TURN.fullmatch, lines(report))):
                file = f"Session{session}/sentences/wav/{match['dialogue']}/{match['name']}.wav"
                yield _Turn(session, file, match["emotion"])


def _iemocap(root: Path, options: ImportOptions) -> Listing:
    files, others = [], []
    for turn in _turns(root):
        if turn.emotion in _IEMOCAP_CLASSES:
            split = held_out(turn.session, options.fold, _SESSIONS)
            files.append(Listed(turn.file, (_IEMOCAP_CLASSES[turn.emotion],), f"session {turn.session}", split))
        else:
            others.append(turn.emotion)
    note = counted(others, "{count} turns of other emotions are left out, most of them {examples}")
    return published(root, files, [note])


@dataclass(frozen=True, kw_only=True)
class _Named:
    """Layout of a corpus of one folder, whose files' names tell class and group; see `parse_names`."""

    folder: str
    pattern: str
    classes: Mapping[str, str]
    group: str

    def __call__(self, root: Path, options: ImportOptions) -> Listing:
        """The files, and those whose names do not follow the scheme."""
        paths = existing(root, self.folder).glob("*.wav")
        parsed = parse_names(root, paths, self.pattern, self.classes, self.group)
        return with_notes(published(root, parsed.files), refused=parsed.refused)


def _ravdess(root: Path, options: ImportOptions) -> Listing:
    paths = list(root.glob("Actor_*/*.wav")) or list(root.glob("*/Actor_*/*.wav"))
    if not paths:
        existing(root, "Actor_01")
    songs = [path.name for path in paths if re.match(r"\d\d-02-", path.name)]
    parsed = parse_names(
        root,
        (path for path in paths if path.name not in songs),
        r"\d\d-01-(?P<label>\d\d)-\d\d-\d\d-\d\d-(?P<group>\d\d)",
        _RAVDESS_CLASSES,
        "actor {group}",
    )
    note = counted(songs, "{count} songs are left out, as {examples}")
    return with_notes(published(root, parsed.files), note, refused=parsed.refused)


IEMOCAP = Importer(
    name="iemocap",
    title="IEMOCAP",
    expects=(
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt ...\n"
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav ...\nSession2/ ... Session5/"
    ),
    source="https://sail.usc.edu/iemocap/ (on request)",
    license="its own, for research, signed with USC",
    task="multi-class",
    group="session: its two speakers share every dialogue",
    split_note=(
        "no fixed split; leave one session out, four classes (anger, happiness with excitement, neutral, sadness): "
        "session 5 is test, session 4 dev; --fold N makes N test, N - 1 dev"
    ),
    layout=_iemocap,
    takes=frozenset({"fold"}),
    num_folds=_SESSIONS,
)
CREMAD = Importer(
    name="crema-d",
    title="CREMA-D",
    expects="AudioWAV/1001_DFA_ANG_XX.wav ...",
    source="https://github.com/CheyneyComputerScience/CREMA-D",
    license="Open Database License 1.0",
    task="multi-class",
    group="actor",
    split_note="no official split: dealt by actor; the label is the intended emotion",
    layout=_Named(
        folder="AudioWAV",
        pattern=r"(?P<group>\d{4})_[A-Z]{3}_(?P<label>[A-Z]{3})_[A-Z]+",
        classes=_CREMAD_CLASSES,
        group="actor {group}",
    ),
)
RAVDESS = Importer(
    name="ravdess",
    title="RAVDESS, speech",
    expects="Actor_01/03-01-01-01-01-01-01.wav ... (also one folder deeper)",
    source="https://zenodo.org/records/1188976",
    license="CC BY-NC-SA 4.0",
    task="multi-class",
    group="actor",
    split_note="no official split: dealt by actor; songs are left out",
    layout=_ravdess,
)
EMODB = Importer(
    name="emodb",
    title="EMO-DB",
    expects="wav/03a01Fa.wav ...",
    source="http://emodb.bilderbar.info/download/",
    license="none stated; free for research",
    task="multi-class",
    group="speaker",
    split_note="no official split: dealt by speaker",
    layout=_Named(
        folder="wav",
        pattern=r"(?P<group>\d\d)[ab]\d\d(?P<label>[A-Z])[a-z]",
        classes=_EMODB_CLASSES,
        group="speaker {group}",
    ),
)
