"""Run a real browser for tests of pages, measure the contrast of all text, and check each page with axe."""

import contextlib
import shutil
from collections.abc import AsyncIterator

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, Page, async_playwright

_QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SCHEMES = ("light", "dark")
WIDTHS = (1280, 390)
# Contrast is axe's slowest rule. `low_contrasts` measures it instead, in both schemes and for hidden text.
_FIND = """() => axe
  .run({ resultTypes: ["violations", "incomplete"], rules: { "color-contrast": { enabled: false } } })
  .then(({ violations, incomplete }) => ({ violations, incomplete }))"""
# WCAG 2.2, success criterion 1.4.3, requires a ratio of 4.5, or of 3 for text of 24 px, or of 18.66 px in bold.
_LOW_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const once = (compute, known = new Map()) => (key) => {
    if (!known.has(key)) known.set(key, compute(key));
    return known.get(key);
  };
  const rgba = once((colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  });
  const over = ([r, g, b, a], below) => [r, g, b].map((part, at) => part * a + below[at] * (1 - a));
  const luminance = (colour) => {
    const [r, g, b] = colour.map((part) => part / 255).map((part) =>
      part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const probe = document.body.appendChild(document.createElement("p"));
  probe.style.color = "Canvas";
  const blank = rgba(getComputedStyle(probe).color);
  probe.remove();
  const background = once((element) => {
    if (!element) return blank;
    const style = getComputedStyle(element);
    if (style.backgroundImage !== "none") throw new Error(`cannot measure text over ${style.backgroundImage}`);
    return over(rgba(style.backgroundColor), background(element.parentElement));
  });
  const opacity = once((element) => element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1);
  const low = [];
  let count = 0;
  const measure = (element, style, text) => {
    count += 1;
    const below = background(element);
    const [r, g, b, alpha] = rgba(style.color);
    const lights = [luminance(over([r, g, b, alpha * opacity(element)], below)), luminance(below)];
    const ratio = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      low.push(`${ratio.toFixed(2)} <${element.tagName.toLowerCase()} class="${element.className}"> ${text}`);
    }
  };
  document.querySelectorAll("[hidden]").forEach((element) => element.hidden = false);
  for (const element of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(element);
    if (!element.checkVisibility() || element.closest(".hidden, script, style, noscript, svg")) continue;
    const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const styled = [[style, texts.map((node) => node.data.trim()).join(" ") || element.value]];
    for (const part of ["::before", "::after"]) {
      const partStyle = getComputedStyle(element, part);
      if (!["none", "normal", '""'].includes(partStyle.content)) styled.push([partStyle, partStyle.content]);
    }
    if (element.placeholder) styled.push([getComputedStyle(element, "::placeholder"), element.placeholder]);
    styled.filter(([, text]) => text).forEach(([textStyle, text]) => measure(element, textStyle, text));
  }
  return { count, low };
}"""


@contextlib.asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Run a browser until the block ends."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*_QUIET])
        yield browser
        await browser.close()


async def low_contrasts(page: Page) -> list[str]:
    """Return each text of a page with too little contrast, in the light or the dark scheme, even if it is hidden."""
    found = []
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for width in WIDTHS:
            await page.set_viewport_size({"width": width, "height": 900})
            # During a transition, a colour would be measured half-way.
            await page.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished))")
            measured = await page.evaluate(_LOW_CONTRAST)
            assert measured["count"] > 1, f"{page.url} shows no text"
            found += [f"{page.url} {scheme} {width}: {text}" for text in measured["low"]]
    return found


async def axe_findings(page: Page) -> list[str]:
    """Return the violations and the undecided checks of axe for a page, on a desktop and on a phone."""
    found = []
    await page.evaluate(AXE_SCRIPT)
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 900})
        results = await page.evaluate(_FIND)
        found += [
            f"{page.url} {width}: {kind} {rule['id']} {node['target']} {node.get('failureSummary', '')}"
            for kind in ("violations", "incomplete")
            for rule in results[kind]
            for node in rule["nodes"]
        ]
    return found
