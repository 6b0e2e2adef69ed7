// Draws each figure.plot from the points beside it; the table below it says the same in text.
(() => {
  const { library } = document.currentScript.dataset;

  const VERDICTS = {
    pass: { name: "pass", symbol: "circle", colour: "--pass" },
    warn: { name: "warn", symbol: "triangle-up", colour: "--warn" },
    hold: { name: "hold", symbol: "square", colour: "--hold" },
    none: { name: "not judged", symbol: "circle-open", colour: "--muted" },
  };

  const colour = (name) => {
    const probe = document.querySelector("#probe");
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };

  const trace = (points, of, more) => ({
    x: points.map((point) => point.at),
    y: points.map(of),
    type: "scatter",
    ...more,
  });

  // A step to where it changes; where there is but one, a dash.
  const level = (points, of, name, dash) => trace(points, of, {
    mode: points.filter((point) => of(point) !== null).length > 1 ? "lines" : "markers",
    hoverinfo: "skip",
    line: { color: colour(name), dash, width: 1.5, shape: "hv" },
    marker: { symbol: "line-ew", size: 9, line: { width: 1.5, color: colour(name) } },
  });

  function traces(points) {
    const drawn = [
      level(points, (p) => p.baseline, "--muted", "dash"),
      level(points, (p) => p.limit, "--hold", "dot"),
      trace(points, (p) => p.value, { mode: "lines", hoverinfo: "skip", line: { color: colour("--accent"), width: 2 } }),
    ];
    for (const [verdict, look] of Object.entries(VERDICTS)) {
      const judged = points.filter((point) => (point.verdict ?? "none") === verdict);
      drawn.push(trace(judged, (p) => p.value, {
        mode: "markers",
        cliponaxis: false,
        marker: { symbol: look.symbol, size: 9, color: colour(look.colour) },
        hovertemplate: `%{x|%Y-%m-%d %H:%M} UTC<br>%{y}: ${look.name}<extra></extra>`,
      }));
    }
    const accepted = points.filter((point) => point.accepted);
    drawn.push(trace(accepted, (p) => p.value, {
      mode: "markers",
      cliponaxis: false,
      marker: { symbol: "circle-open", size: 18, color: colour("--text"), line: { width: 2 } },
      hoverinfo: "skip",
    }));
    return drawn;
  }

  // The total drift: colours and signs as the legend has them.
  const DRIFT = {
    insert: { colour: "--pass", symbol: "cross", name: "to insert" },
    update: { colour: "--accent", symbol: "diamond", name: "to update" },
    delete: { colour: "--hold", symbol: "x", name: "to delete" },
    unproven: { colour: "--muted", symbol: "star", name: "not proven", dash: "dash" },
  };

  const drift = (points) => Object.entries(DRIFT).map(([figure, look]) => trace(points, (p) => p[figure], {
    mode: "lines+markers",
    cliponaxis: false,
    line: { color: colour(look.colour), dash: look.dash, width: 1.5 },
    marker: { symbol: look.symbol, size: 6, color: colour(look.colour) },
    hovertemplate: `%{x|%Y-%m-%d %H:%M} UTC<br>%{y} ${look.name}<extra></extra>`,
  }));

  function layout(width, points) {
    // Steps below one would be rounded to the same number.
    const figures = points.flatMap((point) => Object.values(point).filter(Number.isFinite));
    const ticks = Math.max(0, ...figures) < 5 ? { dtick: 1 } : { nticks: 5 };
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, fixedrange: true };
    return {
      margin: { l: 48, r: 12, t: 8, b: 32 },
      height: 220,
      showlegend: false,
      dragmode: false,
      hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--text") },
      xaxis: { ...axis, type: "date", tickangle: 0, nticks: width < 400 ? 3 : 5 },
      yaxis: { ...axis, rangemode: "tozero", tickformat: ",d", ...ticks },
    };
  }

  // One plot after the other, so that the page can be read and scrolled meanwhile.
  async function draw() {
    for (const figure of document.querySelectorAll("figure.plot")) {
      await new Promise((done) => window.setTimeout(done));
      // What is folded away has no width to be drawn in.
      if (!figure.checkVisibility()) continue;
      const data = figure.querySelector("script");
      const points = JSON.parse(data.textContent);
      const drawing = figure.querySelector(".drawing");
      Plotly.react(drawing, data.dataset.plot === "drift" ? drift(points) : traces(points), layout(drawing.clientWidth, points), { displayModeBar: false, responsive: true });
    }
  }

  function begin() {
    draw();
    document.addEventListener("themechange", draw);
    document.querySelector("details.others")?.addEventListener("toggle", draw);
  }

  // The library is large, and a question stands above the plots: it is loaded when they come near.
  const near = new IntersectionObserver((seen) => {
    if (!seen.some((each) => each.isIntersecting)) return;
    near.disconnect();
    document.head.append(Object.assign(document.createElement("script"), { src: library, onload: begin }));
  }, { rootMargin: "600px" });
  for (const plots of document.querySelectorAll(".plots")) near.observe(plots);
})();
