// The chart, and what is said while numbers update. htmx does the updating; without JavaScript the page reloads.
"use strict";
(() => {
  const EVERY = 10000;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const line = (label, name, dash) => ({ label, stroke: colour(name), width: 2, dash, points: { show: false } });
  const axis = () => ({ stroke: colour("--dim"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } });
  const two = (number) => String(number).padStart(2, "0");
  const time = (seconds) => {
    const at = new Date(seconds * 1000);
    return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  };

  // Each account has a chart of its own.
  const show = (chart) => {
    let plot = null;
    let data = null;

    const draw = () => {
      if (plot) plot.destroy();
      plot = null;
      if (!data || !data[0].length) return;
      const now = data[0][data[0].length - 1];
      plot = new uPlot({
        width: chart.clientWidth,
        height: 200,
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { range: () => [now - 3600, now] }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.15)] } },
        axes: [{ ...axis(), values: (_, ticks) => ticks.map(time) }, axis()],
        series: [{}, line("kept", "--s-kept"), line("asked", "--s-asked", [4, 4]), line("reached", "--s-reached")],
      }, [data[0], data[2], data[1], data[3]], chart);
      const reached = data[3][data[3].length - 1];
      chart.setAttribute("role", "img");
      chart.setAttribute("aria-label", `Requests a second over the last hour; ${reached === null ? "unknown" : reached} reached now`);
    };

    const fetchRate = async () => {
      try {
        const answer = await fetch(chart.dataset.from, { credentials: "same-origin" });
        if (!answer.ok) return;
        data = await answer.json();
        draw();
      } catch {
        // The line that says so comes with the numbers.
      }
    };

    fetchRate();
    if (window.htmx) setInterval(fetchRate, EVERY);
    dark.addEventListener("change", draw);
    addEventListener("resize", () => requestAnimationFrame(draw));
  };

  if (window.uPlot) document.querySelectorAll(".chart").forEach(show);

  const stale = document.getElementById("stale");
  document.body.addEventListener("htmx:afterRequest", (event) => {
    stale.hidden = event.detail.successful;
    if (event.detail.successful) document.getElementById("as-of").textContent = new Date().toISOString().slice(11, 19);
  });
  // Said only when it is something else: a reader is not to hear the same sentence every few seconds.
  document.body.addEventListener("htmx:afterSettle", () => {
    const said = document.getElementById("said");
    const summary = document.getElementById("summary").textContent;
    if (said.textContent !== summary) said.textContent = summary;
  });
})();
