import io
from collections.abc import Callable

import pytest
from PIL import Image

from scripts.simulator import pictures
from scripts.simulator.drawing import person_of
from scripts.simulator.pictures import Subject
from scripts.simulator.scenarios import Scenario, eval_id_for

ONE, OTHER = eval_id_for(Scenario.FLAT, 1), eval_id_for(Scenario.FLAT, 2)


@pytest.mark.parametrize("subject", Subject)
@pytest.mark.parametrize("size", [24_000, 250_000, 2_600_000])
def test_a_jpeg_opens_and_has_about_the_wanted_size(subject: Subject, size: int) -> None:
    picture = pictures.jpeg(ONE, subject, size)
    assert 0.79 * size <= len(picture) <= 1.21 * size
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        assert image.format == "JPEG"


@pytest.mark.parametrize("subject", Subject)
def test_a_jpeg_is_never_smaller_than_its_drawing(subject: Subject) -> None:
    with Image.open(io.BytesIO(pictures.jpeg(ONE, subject, 0))) as image:
        image.load()


@pytest.mark.parametrize("subject", Subject)
def test_a_picture_is_always_the_same_and_another_for_each_evaluation(subject: Subject) -> None:
    assert pictures.jpeg(ONE, subject, 24_000) == pictures.jpeg(ONE, subject, 24_000)
    assert pictures.jpeg(ONE, subject, 24_000) != pictures.jpeg(OTHER, subject, 24_000)
    assert pictures.jpeg(ONE, subject, 24_000) != pictures.jpeg(ONE, subject, 24_000, take=2)


def test_what_fills_a_jpeg_up_cannot_be_mistaken_for_a_second_picture() -> None:
    picture = pictures.jpeg(ONE, Subject.FRONT, 250_000)
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (400, 252)


@pytest.mark.parametrize(("make", "form"), [(pictures.png, "PNG"), (pictures.tiff, "TIFF")])
def test_a_page_opens_in_the_form_it_is_said_to_have(make: Callable[[str, str], bytes], form: str) -> None:
    with Image.open(io.BytesIO(make(ONE, "Title"))) as image:
        image.load()
        assert image.format == form
    assert make(ONE, "Title") == make(ONE, "Title") != make(OTHER, "Title")


def test_a_pdf_is_one_and_says_nothing_of_the_day_it_was_made() -> None:
    file = pictures.pdf(ONE, "Title")
    assert file.startswith(b"%PDF-")
    assert file.endswith(b"%%EOF")
    assert b"/CreationDate (D:20250615" in file
    assert file == pictures.pdf(ONE, "Title") != pictures.pdf(OTHER, "Title")


def test_evaluations_are_of_different_persons() -> None:
    assert len({person_of(eval_id_for(Scenario.FLAT, number)) for number in range(100)}) == 100
