// Announce changed numbers to screen readers, and submit the look-up with Enter. Without JavaScript the page reloads, and
// Tab leads to the button.
"use strict";
(() => {
  document.getElementById("id")?.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    event.target.form.requestSubmit();
  });
  const stale = document.getElementById("stale");
  document.body.addEventListener("htmx:afterRequest", (event) => {
    stale.hidden = event.detail.successful;
    if (event.detail.successful) document.getElementById("as-of").textContent = new Date().toISOString().slice(11, 19);
  });
  // Announced only if it has changed: a screen reader does not repeat the same sentence every few seconds.
  document.body.addEventListener("htmx:afterSettle", () => {
    const said = document.getElementById("said");
    const summary = document.getElementById("summary").textContent;
    if (said.textContent !== summary) said.textContent = summary;
  });
})();
