import importlib.resources
import io
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from scripts.simulator import pictures
from scripts.simulator.pictures import Subject
from scripts.simulator.scenarios import Scenario, eval_id_for
from tests.samples import draw_samples

ONE, OTHER = eval_id_for(Scenario.FLAT, 1), eval_id_for(Scenario.FLAT, 2)
SAMPLES = {
    file.name: file.read_bytes()
    for file in importlib.resources.files("scripts.simulator").joinpath("samples").iterdir()
}
PAGES = {"PNG": pictures.png, "TIFF": pictures.tiff, "PDF": pictures.pdf}

every_subject = pytest.mark.parametrize("subject", Subject)
every_page = pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)


def decoded(file: bytes) -> Image.Image:
    with Image.open(io.BytesIO(file)) as image:
        image.load()
        return image


def visible_content(file: bytes) -> tuple[str | None, tuple[int, int], bytes]:
    """Return the visible content of an image: its format, its size and its pixels."""
    image = decoded(file)
    return image.format, image.size, image.convert("RGB").tobytes()


def test_the_samples_are_up_to_date() -> None:
    drawn = draw_samples()
    assert SAMPLES.keys() == drawn.keys()
    # PNG encoders may write different bytes on other processors, so the visible content is compared.
    assert drawn.pop("page.pdf") == SAMPLES["page.pdf"]
    assert [name for name, file in drawn.items() if visible_content(file) != visible_content(SAMPLES[name])] == []


def test_the_samples_are_small() -> None:
    assert max(map(len, SAMPLES.values())) < 8_000


@every_subject
@pytest.mark.parametrize("size", [24_000, 250_000, 2_600_000])
def test_a_jpeg_shows_its_sample_and_has_about_the_requested_size(subject: Subject, size: int) -> None:
    picture = pictures.jpeg(ONE, subject, size)
    assert 0.79 * size <= len(picture) <= 1.21 * size
    assert visible_content(picture) == visible_content(SAMPLES[f"{subject.value}.jpg"])


@every_subject
def test_a_jpeg_is_never_smaller_than_its_sample(subject: Subject) -> None:
    sample = SAMPLES[f"{subject.value}.jpg"]
    picture = pictures.jpeg(ONE, subject, 0)
    assert len(sample) < len(picture) < len(sample) + 100
    assert visible_content(picture) == visible_content(sample)


@every_subject
def test_a_jpeg_is_stable_and_differs_for_each_evaluation_and_take(subject: Subject) -> None:
    assert pictures.jpeg(ONE, subject, 24_000) == pictures.jpeg(ONE, subject, 24_000)
    assert pictures.jpeg(ONE, subject, 24_000) != pictures.jpeg(OTHER, subject, 24_000)
    assert pictures.jpeg(ONE, subject, 24_000) != pictures.jpeg(ONE, subject, 24_000, take=2)


@every_subject
def test_the_last_comment_of_a_jpeg_names_its_evaluation(subject: Subject) -> None:
    assert decoded(pictures.jpeg(ONE, subject, 24_000, take=2)).info["comment"] == f"{ONE} {subject.value} 2".encode()


@every_page
def test_a_page_is_stable_and_differs_for_each_evaluation_and_label(
    make: Callable[[str, str], bytes],
) -> None:
    assert make(ONE, "Label") == make(ONE, "Label")
    assert len({make(ONE, "Label"), make(OTHER, "Label"), make(ONE, "Other label")}) == 3


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_page_has_its_format(form: str) -> None:
    page = PAGES[form](ONE, "Label")
    assert decoded(page).format == form
    assert visible_content(page) == visible_content(SAMPLES[f"page.{form.lower()}"])


def test_a_png_has_a_comment_that_names_its_evaluation() -> None:
    assert decoded(pictures.png(ONE, "Label")).text == {"Comment": f"{ONE} Label"}


def test_every_chunk_of_a_png_has_the_right_checksum() -> None:
    file, at = pictures.png(ONE, "Label"), 8
    kinds = []
    while at < len(file):
        end = at + 8 + int.from_bytes(file[at : at + 4], "big")
        assert zlib.crc32(file[at + 4 : end]) == int.from_bytes(file[end : end + 4], "big")
        kinds.append(file[at + 4 : at + 8])
        at = end + 4
    assert kinds[-2:] == [b"tEXt", b"IEND"]


def test_a_pdf_is_valid_and_has_a_fixed_creation_date() -> None:
    file = pictures.pdf(ONE, "Label")
    assert file.startswith(b"%PDF-")
    assert file.endswith(b"%%EOF")
    assert b"/CreationDate (D:20250615" in file
    table, comment, end = file.rpartition(f"% {ONE} Label\nstartxref\n".encode())
    assert comment
    assert table[int(end.split()[0]) :].startswith(b"xref\n")
