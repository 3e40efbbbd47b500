"""WebDataset: tars in which the files of one sample share a key, as in 0001.flac and 0001.json."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, cast

from sonar.data.audio_errors import Quarantined
from sonar.data.importers.importer import Importer, ImportOptions, Listing, MissingPart, published, with_notes
from sonar.data.importers.tables import UNLABELLED, counted, split_named_in, visible
from sonar.data.importers.unpack import MAX_AUDIO_BYTES, RefusedEntry, Unpacker, as_labels, destination, place
from sonar.data.listing import AUDIO_SUFFIXES, Listed

_TAR_PATTERNS = ("*.tar", "*.tar.gz", "*.tgz", "*.tar.xz", "*.tar.bz2")
_LABEL_SUFFIXES = (".cls", ".json", ".txt")  # the first that is there tells the label
_MAX_LABEL_BYTES = 2**20


class _Name(NamedTuple):
    key: str
    suffix: str


class _Described(NamedTuple):
    labels: tuple[str, ...]
    group: str


class _Header(tarfile.TarInfo):
    """A header whose extensions (long names, attributes), which tarfile holds in memory, are of a bearable size."""

    _EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in self._EXTENSIONS and self.size > _MAX_LABEL_BYTES:
            raise tarfile.HeaderError(f"a header of {self.size} bytes; at most {_MAX_LABEL_BYTES} are read")
        return super()._proc_member(archive)  # type: ignore[misc]  # the one place that sees a header before its content


@dataclass
class _Sample:
    """Files that share a key, as far as they were read.

    Attributes:
        key: path of a member up to the first dot of its name.
        number: of the sample in its tar, from 1.
        audio: where its audio was unpacked to.
        texts: suffix -> content of a label file.
    """

    key: str
    number: int
    audio: list[str] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)


@dataclass
class _Reader:
    """One pass over the tars; what it finds adds up."""

    unpacker: Unpacker
    columns: dict[str, str]
    files: list[Listed] = field(default_factory=list)
    refused: list[Quarantined] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    sample: _Sample = field(default_factory=lambda: _Sample("", 0))

    def read(self, tar: Path, shown: str) -> None:
        """Add the samples of a tar; a broken one ends where it breaks, and its whole samples stay."""
        self.sample = _Sample("", 0)
        try:
            with tarfile.open(tar, "r|*", tarinfo=_Header) as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # or every header stays in memory
                    self._take(archive, member, shown)
        except (tarfile.TarError, EOFError) as error:
            self.refused.append(Quarantined(shown, f"the tar is broken: {error}", ""))
        self._close(shown)

    def _checked(self, member: tarfile.TarInfo, shown: str) -> _Name | None:
        """Key and suffix of a member that is to be read."""
        if member.isdir():
            return None
        try:
            _check_harmless(member)
        except RefusedEntry as error:
            self.refused.append(Quarantined(f"{shown}:{member.name}", str(error), "", error.kind))
            return None
        path = PurePosixPath(member.name)
        base, _, _ = path.name.partition(".")
        if path.suffix.lower() not in {*AUDIO_SUFFIXES, *_LABEL_SUFFIXES} or not base:
            self.ignored.append(path.suffix or path.name)
            return None
        return _Name((path.parent / base).as_posix(), path.suffix.lower())

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo, shown: str) -> None:
        """Add a member to the sample of its key; another key than the last one's begins a sample."""
        name = self._checked(member, shown)
        if name is None:
            return
        if name.key != self.sample.key:
            self._close(shown)
            self.sample = _Sample(name.key, self.sample.number + 1)
        source = cast(BinaryIO, archive.extractfile(member))
        if name.suffix in _LABEL_SUFFIXES:
            self.sample.texts[name.suffix] = source.read()
            return
        stem = place(shown, self.sample.number, PurePosixPath(member.name).with_suffix("").name)
        self.sample.audio.append(self.unpacker.put(source, stem))

    def _close(self, shown: str) -> None:
        """List the audio of the sample that is read."""
        try:
            if self.sample.texts and not self.sample.audio:
                raise RefusedEntry("no audio of a known kind beside its label", "missing")
            described = _described(self.sample, self.columns)
        except RefusedEntry as error:
            self.refused.append(Quarantined(f"{shown}:{self.sample.key}", str(error), "", error.kind))
            return
        group = described.group or f"{shown}:{self.sample.key}"
        split = split_named_in(shown)
        self.files += [Listed(file, described.labels, group, split) for file in self.sample.audio]


def _webdataset(path: Path, options: ImportOptions) -> Listing:
    below = {tar for pattern in _TAR_PATTERNS for tar in path.rglob(pattern) if tar.is_file()}
    tars = [path] if path.is_file() else visible(below)
    if not tars:
        raise MissingPart(f".tar in {path}")
    if unknown := options.columns.keys() - {"label", "group"}:
        raise ValueError(f"webdataset reads label and group from .json, not {', '.join(sorted(unknown))}")
    with Unpacker(destination(options, tars[0])) as unpacker:
        reader = _Reader(unpacker, {"label": "label", "group": "group", **options.columns})
        for tar in tars:
            reader.read(tar, tar.name if path.is_file() else tar.relative_to(path).as_posix())
    ignored = counted(reader.ignored, "{count} members are neither audio nor labels, as {examples}")
    unlabelled = counted((item.file for item in reader.files if not item.labels), UNLABELLED)
    return with_notes(published(unpacker.folder, reader.files), ignored, unlabelled, refused=reader.refused)


def _check_harmless(member: tarfile.TarInfo) -> None:
    """Refuse what is no plain file of a bearable size under a plain name.

    Raises:
        RefusedEntry: says what it is.
    """
    if member.issym() or member.islnk():
        raise RefusedEntry(f"a link to {member.linkname}", "outside")
    if not member.isreg() or member.issparse():
        raise RefusedEntry("a device, pipe or sparse file", "not a file")
    if PurePosixPath(member.name).is_absolute():
        raise RefusedEntry("an absolute path", "outside")
    if ".." in PurePosixPath(member.name).parts:
        raise RefusedEntry("a path with ..", "outside")
    limit = _MAX_LABEL_BYTES if member.name.lower().endswith(_LABEL_SUFFIXES) else MAX_AUDIO_BYTES
    if member.size > limit:
        raise RefusedEntry(f"{member.size} bytes; at most {limit} are read", "bad header")


def _described(sample: _Sample, columns: dict[str, str]) -> _Described:
    """What the texts of a sample say: .cls or the label in .json or .txt, and the group in .json.

    Raises:
        RefusedEntry: a text that is not what its suffix says.
    """
    try:
        content = json.loads(sample.texts.get(".json", b"{}"))
        texts = {suffix: sample.texts[suffix].decode().strip() for suffix in (".cls", ".txt") if suffix in sample.texts}
    except (ValueError, RecursionError) as error:
        raise RefusedEntry(f"its label cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise RefusedEntry("its .json holds no object")
    told = map(as_labels, (texts.get(".cls"), content.get(columns["label"]), texts.get(".txt")))
    labels = next(filter(None, told), ())
    return _Described(labels, "/".join(as_labels(content.get(columns["group"]))))


WEBDATASET = Importer(
    name="webdataset",
    title="WebDataset tars",
    expects=(
        "train-000000.tar ..., each with KEY.wav or KEY.flac ... and KEY.cls, KEY.json (label, group) or KEY.txt\n"
        "(PATH is a folder or one tar; other keys of the .json by --column label=species)"
    ),
    source="your own, or https://huggingface.co/datasets?library=library:webdataset",
    license="that of the data",
    task="multi-label",
    group="group in .json; the sample where there is none",
    split_note="from the names of tars and folders (train, valid, test, ...); otherwise dealt by group",
    layout=_webdataset,
    published=False,
    takes=frozenset({"columns", "extract_to"}),
)
