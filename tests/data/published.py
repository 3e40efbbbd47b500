"""Small trees in the layouts in which corpora are published, and what each of their files is.

`TREES` has one maker for every importer; the truth beside each file is what the corpus' own documentation says of it.
"""

import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from sonar.data.corpora import ScanResult, finish_scan
from sonar.data.importers import IMPORTERS, ImportOptions
from sonar.data.importers.run import scan_import
from sonar.data.importers.unpack import place
from sonar.data.scan import ScanOptions


class Truth(NamedTuple):
    labels: tuple[str, ...]
    group: str
    split: str


def imported(name: str, path: Path, options: ImportOptions | None = None, max_bad_fraction: float = 0.0) -> ScanResult:
    """A corpus as `sonar data import` takes it in."""
    found = scan_import(IMPORTERS[name], path, domain="d", options=options, scan=ScanOptions(workers=1)).found
    return finish_scan(found, name=str(path), max_bad_fraction=max_bad_fraction)


class Tree(NamedTuple):
    """What an importer is given, and what it must list: files below its root."""

    path: Path
    files: dict[str, Truth]
    options: ImportOptions = ImportOptions()


def write_noise(path: Path, seconds: float = 0.05) -> Path:
    """Noise, another one for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    soundfile.write(path, 0.1 * rng.standard_normal(round(16_000 * seconds)), 16_000)
    return path


def text(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _with_audio(root: Path, files: dict[str, Truth], options: ImportOptions | None = None) -> Tree:
    for file in files:
        write_noise(root / file)
    return Tree(root, files, options or ImportOptions())


def folder(root: Path) -> Tree:
    names = [f"{label}/{number}.wav" for label in ("owl", "wren") for number in range(3)]
    return _with_audio(root, {name: Truth((name.split("/")[0],), name, "") for name in names})


def table(root: Path) -> Tree:
    rows = ["path,species,site,part", "a.wav,wren,s1,training", "b.wav,owl,s2,", "sub/c.wav,,s2,"]
    text(root / "birds.csv", rows)
    made = _with_audio(
        root,
        {
            "a.wav": Truth(("wren",), "s1", "train"),
            "b.wav": Truth(("owl",), "s2", ""),
            "sub/c.wav": Truth((), "s2", ""),
        },
    )
    columns = {"file": "path", "label": "species", "group": "site", "split": "part"}
    return Tree(root / "birds.csv", made.files, ImportOptions(columns=columns))


def esc50(root: Path) -> Tree:
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    files = {}
    for fold in range(1, 6):
        for take in "AB":
            name = f"{fold}-{fold}00032-{take}-0.wav"
            rows.append(f"{name},{fold},0,dog,True,{fold}00032,{take}")
            split = {5: "test", 4: "dev"}.get(fold, "train")
            files[f"audio/{name}"] = Truth(("dog",), f"{fold}00032", split)
    text(root / "meta" / "esc50.csv", rows)
    return _with_audio(root, files)


def urbansound8k(root: Path) -> Tree:
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    files = {}
    for fold in range(1, 11):
        for slice_ in range(2):
            name = f"{1000 + fold}-5-0-{slice_}.wav"
            rows.append(f"{name},{1000 + fold},0.0,4.0,1,{fold},5,engine_idling")
            split = {10: "test", 9: "dev"}.get(fold, "train")
            files[f"audio/fold{fold}/{name}"] = Truth(("engine_idling",), str(1000 + fold), split)
    text(root / "metadata" / "UrbanSound8K.csv", rows)
    return _with_audio(root, files)


def fsd50k(root: Path) -> Tree:
    truth = root / "FSD50K.ground_truth"
    guitar, bark = '"Electric_guitar,Guitar,Music"', "Bark"
    text(
        truth / "dev.csv",
        ["fname,labels,mids,split", f'1,{guitar},"/m/1,/m/2",train', f"2,{bark},/m/3,train", f"3,{bark},/m/3,val"],
    )
    text(truth / "eval.csv", ["fname,labels,mids", f"4,{bark},/m/3", f'5,{guitar},"/m/1,/m/2"'])
    metadata = root / "FSD50K.metadata"
    metadata.mkdir()
    for part, uploaders in {"dev": {"1": "ann", "2": "bob", "3": "cy"}, "eval": {"4": "di", "5": "di"}}.items():
        info = {fname: {"title": "t", "license": "l", "uploader": name} for fname, name in uploaders.items()}
        (metadata / f"{part}_clips_info_FSD50K.json").write_text(json.dumps(info))
    several, one = ("Electric_guitar", "Guitar", "Music"), ("Bark",)
    return _with_audio(
        root,
        {
            "FSD50K.dev_audio/1.wav": Truth(several, "uploader ann", "train"),
            "FSD50K.dev_audio/2.wav": Truth(one, "uploader bob", "train"),
            "FSD50K.dev_audio/3.wav": Truth(one, "uploader cy", "dev"),
            "FSD50K.eval_audio/4.wav": Truth(one, "uploader di", "test"),
            "FSD50K.eval_audio/5.wav": Truth(several, "uploader di", "test"),
        },
    )


def tau(root: Path) -> Tree:
    places = {"barcelona-0": "train", "helsinki-1": "train", "lyon-1001": "train", "paris-9": "evaluate"}
    meta, sides, files = ["filename\tscene_label\tidentifier\tsource_label"], {"train": [], "evaluate": []}, {}
    for identifier, side in places.items():
        for segment in range(2):
            name = f"audio/airport-{identifier}-{segment}-a.wav"
            meta.append(f"{name}\tairport\t{identifier}\ta")
            sides[side].append(f"{name}\tairport")
            files[name] = Truth(("airport",), identifier, "test" if side == "evaluate" else "")
    meta.append("audio/airport-vienna-8-0-a.wav\tairport\tvienna-8\ta")  # on neither side of the fold
    text(root / "meta.csv", meta)
    for side, rows in sides.items():
        text(root / "evaluation_setup" / f"fold1_{side}.csv", ["filename\tscene_label", *rows])
    return _with_audio(root, files)


def gtzan(root: Path) -> Tree:
    lists = {"train": ["blues/blues.00029.wav", "rock/rock.00010.wav"], "valid": ["blues/blues.00000.wav"]}
    lists["test"] = ["rock/rock.00000.wav"]
    files = {}
    for name, rows in lists.items():
        text(root / f"{name}_filtered.txt", rows)
        for row in rows:
            genre = row.split("/")[0]
            split = {"valid": "dev"}.get(name, name)
            files[f"genres/{genre}/{Path(row).stem}.wav"] = Truth((genre,), f"{genre}/{Path(row).stem}", split)
    write_noise(root / "genres" / "rock" / "rock.00099.wav")  # in no list
    return _with_audio(root, files)


def fma(root: Path) -> Tree:
    header = [",album,artist,set,set,track", ",title,id,split,subset,genre_top", "track_id,,,,,"]
    rows = [
        '2,"A ""way"", of life",1,training,small,Hip-Hop',
        "3,B,1,training,small,Hip-Hop",
        "140,C,2,validation,small,Folk",
        "1040,D,3,test,small,Folk",
        "5,E,4,training,large,Rock",  # not of this subset
    ]
    text(root / "fma_metadata" / "tracks.csv", header + rows)
    return _with_audio(
        root,
        {
            "fma_small/000/000002.mp3": Truth(("Hip-Hop",), "artist 1", "train"),
            "fma_small/000/000003.mp3": Truth(("Hip-Hop",), "artist 1", "train"),
            "fma_small/000/000140.mp3": Truth(("Folk",), "artist 2", "dev"),
            "fma_small/001/001040.mp3": Truth(("Folk",), "artist 3", "test"),
        },
    )


def iemocap(root: Path) -> Tree:
    emotions = {"ang": "anger", "hap": "happiness", "exc": "happiness", "neu": "neutral", "sad": "sadness"}
    files = {}
    for session in range(1, 6):
        dialogue = f"Ses0{session}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for number, emotion in enumerate([*emotions, "xxx", "fru"]):
            turn = f"{dialogue}_{'FM'[number % 2]}{number:03d}"
            lines += [f"[{number}.2901 - {number + 1}.2357]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]"]
            lines += [f"C-E2:\t{emotion};\t()", "A-E3:\tval 3; act 2; dom  2;\t()"]
            if emotion in emotions:
                split = {5: "test", 4: "dev"}.get(session, "train")
                file = f"Session{session}/sentences/wav/{dialogue}/{turn}.wav"
                files[file] = Truth((emotions[emotion],), f"session {session}", split)
        text(root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt", lines)
        (root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"._{dialogue}.txt").write_bytes(b"\0Mac")
    return _with_audio(root, files)


def crema_d(root: Path) -> Tree:
    classes = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness", "NEU": "neutral", "SAD": "sadness"}
    return _with_audio(
        root,
        {
            f"AudioWAV/{actor}_DFA_{code}_{level}.wav": Truth((label,), f"actor {actor}", "")
            for actor in (1001, 1002, 1003, 1040)
            for level, (code, label) in zip(("XX", "LO", "MD", "HI", "X", "XX"), classes.items(), strict=True)
        },
    )


def ravdess(root: Path) -> Tree:
    classes = ("neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise")
    write_noise(root / "Actor_01" / "03-02-01-01-01-01-01.wav")  # a song
    return _with_audio(
        root,
        {
            f"Actor_{actor:02d}/03-01-{code:02d}-01-02-01-{actor:02d}.wav": Truth((label,), f"actor {actor:02d}", "")
            for actor in range(1, 5)
            for code, label in enumerate(classes, start=1)
        },
    )


def emodb(root: Path) -> Tree:
    classes = {
        "W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happiness", "T": "sadness", "N": "neutral",
    }  # fmt: skip
    return _with_audio(
        root,
        {
            f"wav/{speaker}{part}{code}{take}.wav": Truth((label,), f"speaker {speaker}", "")
            for speaker in ("03", "08", "16")
            for part, take in (("a01", "a"), ("b10", "b"))
            for code, label in classes.items()
        },
    )


def inat_sounds(root: Path) -> Tree:
    files = {}
    for name, split in {"train": "train", "val": "dev", "test": "test"}.items():
        audio, notes = [], []
        for number, species in enumerate(("Turdus merula", "Hyla arborea")):
            category = f"0000{number}_Animalia_{species.replace(' ', '_')}"
            # The same recordist and day in all three: the official split tears them apart.
            about = {"rights_holder": "eve", "date": "2020-05-17 10:00:00+00:00"} if number else {"date": ""}
            audio.append({"id": number, "file_name": f"{name}/{category}/{name}{number}.wav", "duration": 0.1} | about)
            notes.append({"id": number, "audio_id": number, "category_id": 7 + number})
            group = f"eve 2020-05-17@{split}" if number else f"recording {number}@{split}"
            files[audio[-1]["file_name"]] = Truth((species,), group, split)
        content = {
            "info": {},
            "audio": audio,
            "categories": [{"id": 7, "name": "Turdus merula"}, {"id": 8, "name": "Hyla arborea"}],
            "annotations": notes,
        }
        text(root / f"{name}.json", [json.dumps(content)])
    return _with_audio(root, files)


def beans(root: Path) -> Tree:
    root = root / "watkins"
    files = {}
    for name, split in {"train": "train", "valid": "dev", "test": "test"}.items():
        rows = [",path,label"]
        for number, label in enumerate(("Beluga,_White_Whale", "Narwhal")):
            file = f"wav/{name}{number}.wav"
            rows.append(f'{number},data/watkins/{file},"{label}"')
            files[file] = Truth((label,), file, split)
        text(root / f"annotations.{name}.csv", rows)
    return _with_audio(root, files)


def cbi(root: Path) -> Tree:
    root = root / "cbi"
    competition, files = ["ebird_code,filename,recordist"], {}
    for name, split in {"train": "train", "valid": "dev", "test": "test"}.items():
        rows = [",path,label,split"]
        for number, code in enumerate(("aldfly", "sora")):
            stem = f"XC{number}{len(files)}"
            competition.append(f"{code},{stem}.mp3,{name} Smith")
            rows.append(f"{number},data/cbi/wav/{stem}.wav,{code},{name}")
            files[f"wav/{stem}.wav"] = Truth((code,), f"recordist {name} Smith", split)
        text(root / f"annotations.{name}.csv", rows)
    text(root / "train.csv", competition)
    return _with_audio(root, files)


def audioset(root: Path) -> Tree:
    comment = ["# Segments csv created Sun Mar  5 10:54:31 2017", "# num_ytids=3", "# YTID, start_seconds, ..."]
    text(
        root / "class_labels_indices.csv",
        ["index,mid,display_name", "0,/m/09x0r,Speech", '1,/t/dd00088,"Gush, splash"', "2,/m/0jbk,Animal"],
    )
    text(
        root / "balanced_train_segments.csv",
        [*comment, '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"', 'Yaaaaaaaaa_, 0.000, 10.000, "/m/0jbk"'],
    )
    text(
        root / "unbalanced_train_segments.csv",
        [*comment, 'bbbbbbbbbbb, 0.000, 10.000, "/m/0jbk"', 'gone_gone-1, 0.000, 10.000, "/m/0jbk"'],
    )
    text(root / "eval_segments.csv", [*comment, '-0RWZT-miFs, 420.000, 430.000, "/m/0jbk,/m/09x0r"'])
    return _with_audio(
        root,
        {
            "balanced/--PJHxphWEs_30.000.wav": Truth(("Speech", "Gush, splash"), "--PJHxphWEs", ""),
            "balanced/Yaaaaaaaaa_.wav": Truth(("Animal",), "Yaaaaaaaaa_", ""),
            "unbalanced/part0/Ybbbbbbbbbbb.wav": Truth(("Animal",), "bbbbbbbbbbb", ""),
            "eval/-0RWZT-miFs_420000_430000.wav": Truth(("Animal", "Speech"), "-0RWZT-miFs", "test"),
        },
    )


def huggingface(root: Path) -> Tree:
    """Parquet as `datasets` itself writes it."""
    from datasets import Audio, ClassLabel, Dataset, Features, Value, disable_progress_bars

    disable_progress_bars()
    features = Features(
        {"audio": Audio(sampling_rate=16_000), "label": ClassLabel(names=["owl", "wren"]), "speaker": Value("string")}
    )
    files = {}
    for name, split in {"train": "", "test": "test"}.items():
        rows = [write_noise(root / "made" / f"{name}{number}.wav").read_bytes() for number in range(4)]
        made = Dataset.from_dict(
            {
                "audio": [{"bytes": data, "path": f"{name}{number}.wav"} for number, data in enumerate(rows)],
                "label": [0, 1, 0, 1],
                "speaker": [f"{name} {number // 2}" for number in range(4)],
            }
        )
        made.cast(features).to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
        for number in range(4):
            file = f"{place(f'{name}-00000-of-00001.parquet', number, f'{name}{number}')}.wav"
            files[file] = Truth((("owl", "wren")[number % 2],), f"{name} {number // 2}", split)
    return Tree(root / "data", files, ImportOptions(columns={"group": "speaker"}, extract_to=root / "unpacked"))


def webdataset(root: Path) -> Tree:
    (root / "data").mkdir(parents=True)
    files = {}
    for name, split in {"train": "train", "valid": "dev", "test": "test"}.items():
        with tarfile.open(root / "data" / f"{name}-0000.tar", "w") as tar:
            for number in range(2):
                write_noise(root / "made.wav")
                (root / "made.json").write_text(json.dumps({"label": ["owl", "wren"][: number + 1], "group": name}))
                for suffix in (".wav", ".json"):
                    tar.add(root / f"made{suffix}", f"{number:04d}{suffix}")
                file = f"{place(f'{name}-0000.tar', number + 1, f'{number:04d}')}.wav"
                files[file] = Truth(("owl", "wren")[: number + 1], name, split)
    return Tree(root / "data", files, ImportOptions(extract_to=root / "unpacked"))


TREES: dict[str, Callable[[Path], Tree]] = {
    "folder": folder,
    "csv": table,
    "huggingface": huggingface,
    "webdataset": webdataset,
    "audioset": audioset,
    "fsd50k": fsd50k,
    "esc50": esc50,
    "urbansound8k": urbansound8k,
    "tau": tau,
    "gtzan": gtzan,
    "fma": fma,
    "iemocap": iemocap,
    "crema-d": crema_d,
    "ravdess": ravdess,
    "emodb": emodb,
    "inat-sounds": inat_sounds,
    "beans": beans,
    "cbi": cbi,
}
