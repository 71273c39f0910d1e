// The chart of accuracy against tokens: a point an entry that the table shows, and the Pareto front of each league.
"use strict";
{
  const table = new DataTable.Api("#board"), section = document.querySelector("#front");
  const choice = section.querySelector("select"), canvas = section.querySelector("canvas"), words = section.querySelector("ul");
  const columns = Object.fromEntries(table.columns().header().toArray().map((cell, i) => [cell.dataset.name, i]));
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]; // told apart by most colour-blind people
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (text) => (text.length > 18 ? text.slice(0, 17) + "…" : text);

  const points = () => {
    const found = new Map();
    for (const i of table.rows({ search: "applied", order: "index" }).indexes().toArray()) {
      const { stream, model, preset, division } = table.row(i).node().dataset;
      const number = (name) => parseFloat(table.cell(i, columns[name]).node().dataset.order);
      const point = { x: number("tokens"), y: number(choice.value), name: table.cell(i, 0).node().querySelector("a").textContent };
      const league = [stream, model, preset, division].join(" · ");
      if (!isNaN(point.x) && !isNaN(point.y)) found.set(league, [...(found.get(league) ?? []), point]);
    }
    return found;
  };

  // Those that no other one beats with as few tokens.
  const front = (all) => {
    const kept = [];
    for (const point of [...all].sort((a, b) => a.x - b.x || b.y - a.y)) if (!kept.length || point.y > kept.at(-1).y) kept.push(point);
    return kept;
  };

  const names = {
    id: "names",
    afterDatasetsDraw: (chart) => {
      const { ctx, data, chartArea } = chart;
      ctx.save();
      ctx.font = "12px sans-serif";
      ctx.fillStyle = style("--ink");
      data.datasets.forEach((set, i) => {
        if (set.type !== "scatter") return;
        chart.getDatasetMeta(i).data.forEach((element, j) => {
          const left = element.x > (chartArea.left + chartArea.right) / 2;
          ctx.textAlign = left ? "right" : "left";
          ctx.fillText(short(set.data[j].name), element.x + (left ? -8 : 8), element.y - 6);
        });
      });
      ctx.restore();
    },
  };

  const axis = (text) => ({ beginAtZero: true, title: { display: true, text, color: style("--soft") }, ticks: { color: style("--soft") }, grid: { color: style("--line") } });
  const chart = new Chart(canvas, {
    data: { datasets: [] },
    options: {
      animation: false,
      maintainAspectRatio: false,
      plugins: { tooltip: { callbacks: { label: ({ raw }) => `${short(raw.name)}: ${raw.y.toFixed(3)}, ${raw.x.toLocaleString("en")} tokens` } } },
    },
    plugins: [names],
  });

  const draw = () => {
    const leagues = [...points()], datasets = [];
    words.replaceChildren();
    leagues.forEach(([league, all], i) => {
      const colour = COLOURS[i % COLOURS.length], best = front(all);
      datasets.push({ type: "scatter", label: league, data: all, backgroundColor: colour, borderColor: colour, pointRadius: 5 });
      datasets.push({ type: "line", label: `front of ${league}`, data: best, borderColor: colour, borderWidth: 1.5, stepped: true, pointRadius: 0 });
      const item = document.createElement("li");
      item.textContent = `${league}: ${best.map(({ name }) => short(name)).join(", ")}`;
      words.append(item);
    });
    chart.data.datasets = datasets;
    chart.options.scales = { x: { type: "linear", ...axis("sampled tokens") }, y: axis(choice.selectedOptions[0].textContent) };
    chart.options.plugins.legend = { labels: { color: style("--ink"), filter: ({ text }) => !text.startsWith("front of ") } };
    chart.update();
  };

  choice.addEventListener("change", draw);
  dark.addEventListener("change", draw);
  table.on("draw", draw);
  section.hidden = false;
  chart.resize();
  draw();
}
