"""Draw a card, a face and a page of somebody who is made up from the evaluation's ID.

Every picture shows the ID it belongs to, so that a person who opens one can tell whose it is.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

Ink = int | tuple[int, int, int]

_CARD = (400, 252)
_FACE = (300, 400)
_PAGE = (420, 594)
_INK = (32, 38, 54)
_GREY_INK = 32
_NAMES = ("Ada", "Bruno", "Chidi", "Dana", "Emil", "Farah", "Goran", "Hana")
_FAMILIES = ("Sample", "Muster", "Example", "Specimen", "Ejemplo", "Exemple", "Esempio", "Voorbeeld")
_SKINS = ((255, 224, 196), (240, 196, 160), (214, 160, 120), (170, 116, 80), (122, 82, 56), (90, 60, 44))
_HAIRS = ((24, 20, 20), (70, 44, 26), (120, 78, 36), (190, 150, 80), (150, 150, 150), (140, 60, 30))


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist.

    Attributes:
        name: first and family name.
        number: the number of the ID card.
        skin: colour as red, green, blue.
        hair: colour as red, green, blue.
        shade: colour of clothes and card.
    """

    name: str
    number: str
    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    shade: tuple[int, int, int]


def person_of(eval_id: str) -> Person:
    """Return the person of an evaluation: always the same one, and another one for another ID."""
    dice = hashlib.blake2b(eval_id.encode(), digest_size=16).digest()
    return Person(
        name=f"{_NAMES[dice[0] % len(_NAMES)]} {_FAMILIES[dice[1] % len(_FAMILIES)]}",
        number=dice[2:7].hex().upper(),
        skin=_SKINS[dice[7] % len(_SKINS)],
        hair=_HAIRS[dice[8] % len(_HAIRS)],
        shade=(80 + dice[9] % 120, 80 + dice[10] % 120, 80 + dice[11] % 120),
    )


def front(eval_id: str) -> Image.Image:
    """Draw the front of an ID card."""
    person = person_of(eval_id)
    image, pen = _card(eval_id, "IDENTITY CARD  ·  SPECIMEN")
    image.paste(_head(person).resize((96, 128), Image.Resampling.BOX), (24, 64))
    _write(pen, (140, 72), person.name, size=18, ink=_INK)
    _write(pen, (140, 106), person.number, size=18, ink=_INK)
    return image


def back(eval_id: str) -> Image.Image:
    """Draw the back of an ID card, with the lines that machines read."""
    person = person_of(eval_id)
    image, pen = _card(eval_id, "REVERSE  ·  SPECIMEN")
    _write(pen, (24, 124), f"IDXXX{person.number:<<22}", size=18, ink=_INK)
    _write(pen, (24, 154), f"{person.name.upper().replace(' ', '<<'):<<26}", size=18, ink=_INK)
    return image


def selfie(eval_id: str) -> Image.Image:
    """Draw a face."""
    image = _head(person_of(eval_id))
    _write(ImageDraw.Draw(image), (14, 376), eval_id, size=13, ink=(255, 255, 255))
    return image


def page(eval_id: str, title: str) -> Image.Image:
    """Draw a page of paper with a title."""
    image = Image.new("L", _PAGE, 252)
    pen = ImageDraw.Draw(image)
    _write(pen, (36, 40), title, size=22, ink=_GREY_INK)
    _write(pen, (36, 80), person_of(eval_id).name, size=18, ink=_GREY_INK)
    _write(pen, (36, 110), eval_id, size=13, ink=_GREY_INK)
    for y in range(160, 540, 20):
        pen.line((36, y, 384 - y * 7 % 90, y), fill=150, width=3)
    return image


def _card(eval_id: str, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = _blank_card(title).copy()
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 44, _CARD[0], 50), fill=person_of(eval_id).shade)
    _write(pen, (24, 216), eval_id, size=13, ink=_INK)
    return image, pen


@cache
def _blank_card(title: str) -> Image.Image:
    """Draw what all cards have in common; writing is what takes the time."""
    image = Image.new("RGB", _CARD, (238, 240, 244))
    pen = ImageDraw.Draw(image)
    for x in range(-_CARD[1], _CARD[0], 36):
        pen.line((x, _CARD[1], x + _CARD[1], 0), fill=(214, 222, 232))
    _write(pen, (24, 12), title, size=18, ink=_INK)
    return image


def _head(person: Person) -> Image.Image:
    image = Image.new("RGB", _FACE, (120, 136, 150))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 260, _FACE[0], _FACE[1]), fill=(104, 118, 130))
    pen.ellipse((30, 300, 270, 520), fill=person.shade)
    pen.ellipse((66, 50, 234, 260), fill=person.hair)
    pen.rectangle((126, 250, 174, 320), fill=person.skin)
    pen.ellipse((80, 82, 220, 290), fill=person.skin)
    for x in (120, 180):
        pen.ellipse((x - 13, 160, x + 13, 178), fill=(250, 250, 250))
        pen.ellipse((x - 6, 163, x + 6, 175), fill=_INK)
    pen.line((150, 180, 144, 214, 154, 216), fill=_INK, width=2)
    pen.arc((118, 206, 182, 252), 20, 160, fill=(150, 60, 60), width=4)
    return image


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, *, size: int, ink: Ink) -> None:
    """Write letter by letter: drawing letters is what takes the time, and so each is drawn only once."""
    x, y = at
    for letter in text:
        shape, width = _letter(letter, size)
        pen.bitmap((x, y), shape, ink)
        x += width


@cache
def _letter(letter: str, size: int) -> tuple[Image.Image, int]:
    font = ImageFont.load_default(size)
    width = round(font.getlength(letter))
    shape = Image.new("L", (width + 2, 2 * size), 0)
    ImageDraw.Draw(shape).text((0, 0), letter, font=font, fill=255)
    return shape, width
