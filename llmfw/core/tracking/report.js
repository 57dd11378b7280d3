"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const places = [...document.querySelectorAll(".chart")];
  const smoothing = document.getElementById("smoothing");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function smooth(values, weight) {
    // exponential moving average, its start corrected for the missing past
    let sum = 0, mass = 0;
    return values.map((value) => {
      if (value === null) return null;
      sum = weight * sum + (1 - weight) * value;
      mass = weight * mass + (1 - weight);
      return sum / mass;
    });
  }

  function curves(chart, weight) {
    const traces = [];
    chart.runs.forEach((run) => {
      const look = data.runs[run.run];
      const line = { color: look.color, dash: look.dash, width: 2 };
      const base = { type: "scatter", x: run.x, name: look.name, showlegend: false, connectgaps: false };
      const mode = run.x.length < 40 ? "lines+markers" : "lines";
      if (weight > 0) {
        traces.push({ ...base, y: run.y, mode: "lines", line: { ...line, width: 1 }, opacity: 0.25, hoverinfo: "skip" });
      }
      traces.push({
        ...base, y: weight > 0 ? smooth(run.y, weight) : run.y, mode, line, marker: { size: 4, color: look.color },
        hovertemplate: "%{y:.6g}<extra>%{fullData.name}</extra>",
      });
    });
    return traces;
  }

  function intervals(chart) {
    return chart.runs.map((run) => {
      const look = data.runs[run.run];
      return {
        type: "scatter", mode: "markers", cliponaxis: false, x: [look.name], y: [run.value], name: look.name, showlegend: false,
        marker: { size: 9, color: look.color },
        error_y: { type: "data", symmetric: false, array: [run.high - run.value], arrayminus: [run.value - run.low], color: look.color },
        hovertemplate: "%{y:.6g}<extra>%{fullData.name}</extra>",
      };
    });
  }

  function draw(place) {
    const chart = data.charts[Number(place.dataset.chart)];
    const weight = Number(smoothing ? smoothing.value : 0) / 100;
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
    const isCurve = chart.kind === "curve";
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--soft"), size: 11 },
      margin: { l: 48, r: 12, t: 12, b: 36 }, hovermode: isCurve ? "x unified" : "closest",
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } },
      xaxis: { ...axis, ...(isCurve ? { title: { text: "step" } } : { type: "category" }) },
      yaxis: { ...axis, exponentformat: "power" },
    };
    const settings = {
      responsive: true, displayModeBar: false, displaylogo: false, plotlyServerURL: "",
    };
    Plotly.react(place, isCurve ? curves(chart, weight) : intervals(chart), layout, settings);
    place.dataset.drawn = "yes";
  }

  // charts far below are drawn when they come near, so that a long report opens at once
  const watch = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => { watch.unobserve(entry.target); draw(entry.target); });
  }, { rootMargin: "600px" });
  places.forEach((place) => watch.observe(place));
  const again = () => places.filter((place) => place.dataset.drawn).forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("beforeprint", () => places.forEach(draw));
  if (smoothing) smoothing.addEventListener("input", again);

  const filter = document.getElementById("filter");
  if (filter) {
    filter.addEventListener("input", () => {
      const wanted = filter.value.toLowerCase();
      document.querySelectorAll("[data-name]").forEach((item) => {
        item.hidden = !item.dataset.name.toLowerCase().includes(wanted);
      });
    });
  }
})();
