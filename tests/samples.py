"""Draw the sample documents of the simulator into scripts/simulator/samples.

    make samples

They show a specimen card, a drawn face and a page of dashes: no real person, and no name of one.
"""

import io
import time
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SAMPLES = Path(__file__).parents[1] / "scripts" / "simulator" / "samples"

_CARD, _FACE, _PAGE = (400, 252), (300, 400), (420, 594)
_INK, _SKIN, _HAIR, _SHADE = (32, 38, 54), (214, 160, 120), (70, 44, 26), (96, 128, 150)
_BLACK, _WHITE = 0, 1
_QUALITY = 40
_DATE = time.gmtime(1_750_000_000)


def draw_samples() -> dict[str, bytes]:
    """Return every sample by its file name."""
    page = draw_page()
    return {
        "front.jpg": _encode(draw_front(), "JPEG", quality=_QUALITY, optimize=True),
        "back.jpg": _encode(draw_back(), "JPEG", quality=_QUALITY, optimize=True),
        "selfie.jpg": _encode(draw_face(), "JPEG", quality=_QUALITY, optimize=True),
        "page.png": _encode(page, "PNG"),
        "page.tiff": _encode(page, "TIFF", compression="group4"),
        "page.pdf": _encode(page, "PDF", title="Specimen", creationDate=_DATE, modDate=_DATE),
    }


def draw_front() -> Image.Image:
    """Draw the front of an ID card."""
    image, pen = _draw_card("IDENTITY CARD")
    image.paste(draw_face().resize((96, 128), Image.Resampling.BOX), (24, 84))
    _write(pen, (144, 92), "SPECIMEN", 34)
    _write(pen, (144, 150), "000000000", 24)
    return image


def draw_back() -> Image.Image:
    """Draw the back of an ID card, with its machine-readable lines."""
    image, pen = _draw_card("REVERSE")
    for y, line in ((124, "IDXXX000000000"), (164, "SPECIMEN")):
        _write(pen, (24, y), f"{line:<<22}", 22)
    return image


def draw_face() -> Image.Image:
    """Draw a face."""
    image = Image.new("RGB", _FACE, (190, 200, 208))
    pen = ImageDraw.Draw(image)
    pen.ellipse((30, 300, 270, 520), fill=_SHADE)
    pen.ellipse((66, 50, 234, 260), fill=_HAIR)
    pen.rectangle((126, 250, 174, 320), fill=_SKIN)
    pen.ellipse((80, 82, 220, 290), fill=_SKIN)
    for x in (120, 180):
        pen.ellipse((x - 13, 160, x + 13, 178), fill="white")
        pen.ellipse((x - 6, 163, x + 6, 175), fill=_INK)
    pen.line((150, 180, 144, 214, 154, 216), fill=_INK, width=2)
    pen.arc((118, 206, 182, 252), 20, 160, fill=(150, 60, 60), width=4)
    return image


def draw_page() -> Image.Image:
    """Draw a page in black and white, as a scanner makes it."""
    image = Image.new("1", _PAGE, _WHITE)
    pen = ImageDraw.Draw(image)
    pen.text((36, 60), "SPECIMEN", font=ImageFont.load_default(40), fill=_BLACK)
    for y in range(160, 540, 20):
        pen.line((36, y, 384 - y * 7 % 90, y), fill=_BLACK, width=3)
    return image


def _draw_card(title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", _CARD, (238, 240, 244))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 52, _CARD[0], 60), fill=_SHADE)
    _write(pen, (24, 12), title, 24)
    return image, pen


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int) -> None:
    pen.text(at, text, font=ImageFont.load_default(size), fill=_INK)


def _encode(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


if __name__ == "__main__":
    for name, data in draw_samples().items():
        (SAMPLES / name).write_bytes(data)
