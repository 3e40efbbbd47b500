"""The card as a page and as tables: alone, with the card's numbers, and taking no name at its word."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from rich.console import Console

from sonar.card_page import card_page
from sonar.card_pictures import HEIGHT, WIDTH, Picture, choose, draw_classes, draw_clip, spectrogram
from sonar.cli.data.card_tables import card_parts
from sonar.data.audio import AudioError
from sonar.data.card import CardConfig, Source, make_card
from sonar.data.card_copies import Copy
from sonar.data.card_schema import BadFile, Card, card_json
from sonar.data.manifest import Clip, write_manifest

EVIL = "<script>alert(1)</script><img src=http://evil/x onerror=alert(2)>\"'&[red]"
RATE = 44_100
ONE = CardConfig(workers=1)


def clip_of(path: Path, name: str, rate: int = RATE, **values: object) -> Clip:
    info = soundfile.info(str(path))
    made = Clip(
        clip_id=name,
        path=str(path),
        start_s=0.0,
        duration_s=info.duration,
        sample_rate=rate,
        channels=1,
        corpus="birds",
        domain="bio",
        labels=("owl",),
        group=f"g{name}",
        split="train",
        sha256=name.encode().hex().ljust(64, "0")[:64],
    )
    return made._replace(**values)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """A class that hoots at 2 kHz and one with a hostile name that whistles at 16.5 kHz, three clips each."""
    root, made = tmp_path_factory.mktemp("page"), []
    for label, hertz in (("owl", 2_000), (EVIL, 16_500)):
        for number in range(3):
            path = root / f"{hertz}-{number}.wav"
            time_s = np.arange(RATE // 2) / RATE
            soundfile.write(path, (0.2 + 0.1 * number) * np.sin(2 * np.pi * hertz * time_s), RATE)
            split = ("train", "dev", "test")[number]
            made.append(clip_of(path, f"{label}/{number}", labels=(label,), split=split, corpus=f"birds{EVIL}"))
    return made


@pytest.fixture(scope="module")
def card(clips: list[Clip]) -> Card:
    """With something hostile in every list."""
    made = make_card(
        Source(f"folder{EVIL}", clips, None), against=[Source(f"eval{EVIL}", clips[3:4], None)], config=ONE
    )
    bad = BadFile(path=EVIL, reason=f"because {EVIL}", sha256="0" * 64)
    pair = Copy(
        kind="near", clip_id=EVIL, split="train", other="", other_clip_id=EVIL, other_split="dev", error_rate=0.1
    )
    return replace(made, quarantine=(bad,), unreadable=(bad,), copies=replace(made.copies, within_splits=(pair,)))


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(card: Card, clips: list[Clip]) -> Page:
    return Page(card_page(card, draw_classes(clips, 2, workers=1)))


def test_the_page_loads_and_runs_nothing(page: Page) -> None:
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form", "base", "audio", "a")
        assert not {"href", "srcset", "data", "action"} & attrs.keys() and not [n for n in attrs if n.startswith("on")]
        assert "src" not in attrs or (attrs["src"] or "").startswith("data:image/png;base64,")
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "content" in attrs)
    assert policy is not None and policy.startswith("default-src 'none'") and "http" not in policy


def test_hostile_names_stay_text_in_every_section(page: Page) -> None:
    assert page.text.count(EVIL) >= 12
    alternatives = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert len(alternatives) == 4 and any(EVIL in (text or "") for text in alternatives)


def test_the_line_of_8_khz_stands_where_8_khz_are(page: Page) -> None:
    heights = [
        float(re.findall(r"bottom:([\d.]+)%", attrs["style"] or "")[0]) for tag, attrs in page.tags if tag == "i"
    ]
    assert heights == pytest.approx([100 * 8_000 / 22_050] * 4, abs=0.01)


def test_a_picture_of_low_rate_has_no_line(card: Card) -> None:
    low = Picture(clip_id="a", uri="data:image/png;base64,", start_s=0.0, seconds=1.0, top_hz=8_000.0)
    assert "<i " not in card_page(card, {("birds", "owl"): [low]})


def test_a_clip_that_cannot_be_drawn_says_why(card: Card, clips: list[Clip], tmp_path: Path) -> None:
    gone = clips[0]._replace(path=str(tmp_path / "gone.wav"), start_s=0.0)
    short = clips[0]._replace(start_s=9.0, labels=("short",))
    pictures = draw_classes([gone, short], 1, workers=1)
    assert [str(one[0]) for one in pictures.values()] == ["no such file", "the file ends before the clip begins"]
    text = card_page(card, {("birds", "owl"): [AudioError(f"no such file {EVIL}")]})
    assert "cannot be drawn: no such file" in text and EVIL in Page(text).text


@pytest.mark.parametrize("hertz", [500, 8_000, 20_000])
def test_a_sine_is_drawn_at_its_frequency(tmp_path: Path, hertz: int) -> None:
    path = tmp_path / "sine.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE), RATE)
    picture = draw_clip(clip_of(path, "sine"))
    image = Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2])))
    assert image.size == (WIDTH, HEIGHT)
    brightness = np.asarray(image.convert("L"), dtype=float).mean(axis=1)
    assert HEIGHT - np.argmax(brightness) == pytest.approx(HEIGHT * hertz / picture.top_hz, abs=1.5)


def test_a_spectrogram_is_decibels_below_its_strongest_point() -> None:
    wave = np.concatenate([np.ones(RATE), 0.1 * np.ones(RATE)]) * np.sin(2 * np.pi * 5_000 * np.arange(2 * RATE) / RATE)
    decibels = spectrogram(wave.astype(np.float32), RATE)
    assert decibels.max() == 0 and decibels.min() == -70
    loud, quiet = np.array_split(decibels.max(axis=0), 2)
    assert np.median(loud) == pytest.approx(0, abs=0.1) and np.median(quiet) == pytest.approx(-20, abs=0.1)
    assert (spectrogram(np.zeros(RATE, dtype=np.float32), RATE) == -70).all()


def test_of_a_long_clip_the_loudest_part_is_drawn(tmp_path: Path) -> None:
    wave = 0.001 * np.random.default_rng(0).standard_normal(20 * 8_000)
    wave[12 * 8_000 : 13 * 8_000] *= 100
    soundfile.write(tmp_path / "long.wav", wave, 8_000)
    picture = draw_clip(clip_of(tmp_path / "long.wav", "long", 8_000))
    assert picture.start_s <= 12 and picture.start_s + picture.seconds >= 13 and picture.seconds == 5


def test_pictures_are_of_different_groups_and_the_same_every_time(clips: list[Clip]) -> None:
    many = [clips[0]._replace(clip_id=str(n), group=f"g{n // 4}", sha256=f"{n * 7 % 12:064x}") for n in range(12)]
    assert len({clip.group for clip in choose(many, 3)}) == 3
    assert choose(many, 5) == choose(many[::-1], 5)
    assert len(choose(many, 99)) == 12


def test_large_classes_are_drawn_where_not_all_can_be(clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonar.card_pictures.MAX_PICTURES", 2)
    more = [clips[0]._replace(clip_id="more", group="more"), *clips]
    assert list(draw_classes(more, 2, workers=1)) == [(clips[0].corpus, "owl")]
    assert draw_classes(more, 0, workers=1) == {}


@pytest.fixture
def manifest(clips: list[Clip]) -> Path:
    """Of the clips under plain names."""
    path = Path(clips[0].path).parent / "manifest.parquet"
    plain = {"owl": "owl", EVIL: "whistler"}
    write_manifest([clip._replace(labels=(plain[clip.labels[0]],), corpus="b") for clip in clips], path)
    return path


def test_terminal_json_and_page_tell_the_same_numbers(run_sonar, manifest: Path, tmp_path: Path) -> None:
    status, out, err = run_sonar(
        *("data", "card", manifest, "--json", tmp_path / "card.json", "--html", tmp_path / "card.html"),
        *("--workers", 1, "--min-clips", 4, "--pictures", 1),
    )
    assert (status, err) == (0, "")
    made = json.loads((tmp_path / "card.json").read_text())
    page_text = (tmp_path / "card.html").read_text()
    assert page_text.count("<img ") == 2
    flat = re.sub(r"\s+", " ", out)
    for one in made["advice"]:
        assert one["text"] in flat and one["text"] in Page(page_text).text
    assert any(one["rule"] == "few_clips" for one in made["advice"])
    for one in (*made["sounds"]["classes"], made["sounds"]["all"]):
        row = next(line for line in out.split("Sound,")[1].splitlines() if line.split()[:1] == [one["label"] or "all"])
        told = [
            f"{one['lost']['median']:.1%}",
            f"{one['energy_99_hz']:.0f}",
            f"{one['top_hz']:.0f}",
            str(one["narrow"]),
        ]
        told += [f"{one['rms_dbfs']:.1f}", f"{one['silent']:.1%}", str(one["clipped"])]
        assert row.split()[1:] == told
        for value in (one["lost"]["median"], one["rms_dbfs"], one["peak_dbfs"], one["silent"], one["top_hz"] / 1000):
            assert f'data-value="{value!r}"' in page_text


def test_a_terminal_shows_hostile_names_as_they_are(card: Card) -> None:
    console = Console(file=io.StringIO(), width=300, record=True, force_terminal=True)
    for part in card_parts(card):
        console.print(part)
    assert console.export_text().count(EVIL) >= 5


def test_the_json_of_hostile_names_is_json(card: Card) -> None:
    assert json.loads(card_json(card))["origin"]["path"] == f"folder{EVIL}"


def test_a_sampled_card_says_so(run_sonar, manifest: Path) -> None:
    status, out, _ = run_sonar("data", "card", manifest, "--max-clips", 2, "--seed", 7, "--workers", 1)
    assert status == 0 and "audio of 2 clips read, drawn by seed 7" in out
