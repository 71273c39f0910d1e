// The board's table is complete without this. It sorts (DataTables), filters, hides columns and intervals, and keeps the view in the address.
"use strict";
{
  const table = document.querySelector("#board"), form = document.querySelector("#view"), status = document.querySelector("#status");
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.dataset.name);
  const selects = [...form.querySelectorAll("select")], boxes = [...form.querySelectorAll("[name=column]")];

  // What has no number comes last in both directions; ties keep the board's own order.
  const missing = (a, b) => isNaN(a) - isNaN(b);
  DataTable.type("number", {
    order: {
      pre: (text) => (text === "" ? NaN : Number(text)),
      asc: (a, b) => missing(a, b) || a - b || 0,
      desc: (a, b) => missing(a, b) || b - a || 0,
    },
  });
  const board = new DataTable(table, {
    paging: false, autoWidth: false, order: [], orderDescReverse: false,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    language: { emptyTable: "No entries yet.", zeroRecords: "No entry matches." },
    columnDefs: [
      { targets: ".number", type: "number", searchable: false },
      { targets: ".more", orderSequence: ["desc", "asc", ""] },
    ],
  });
  board.search.fixed("chosen", (text, data, i) => selects.every((s) => !s.value || board.row(i).node().dataset[s.name] === s.value));

  // --- the view, from the address to the page and back

  const read = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const select of selects) {
      select.value = asked.get(select.name) ?? "";
      if (select.selectedIndex < 0) select.value = "";
    }
    form.q.value = asked.get("q") ?? "";
    form.intervals.checked = asked.get("intervals") !== "off";
    const columns = asked.get("columns")?.split(",");
    for (const box of boxes) box.checked = columns ? columns.includes(box.value) : box.defaultChecked;
    const sorted = (asked.get("sort") ?? "").split(",").map((part) => part.split(":"));
    board.order(sorted.filter(([name, way]) => names.includes(name) && /^(asc|desc)$/.test(way)).map(([name, way]) => [names.indexOf(name), way]));
    show();
  };

  const show = () => {
    for (const box of boxes) board.column(names.indexOf(box.value)).visible(box.checked, false);
    table.classList.toggle("without-intervals", !form.intervals.checked);
    board.search(form.q.value).draw();
  };

  const write = () => {
    const view = new URLSearchParams();
    for (const select of selects) if (select.value) view.set(select.name, select.value);
    if (form.q.value) view.set("q", form.q.value);
    const sorted = board.order().filter(([, way]) => way);
    if (sorted.length) view.set("sort", sorted.map(([column, way]) => `${names[column]}:${way}`).join());
    if (boxes.some((box) => box.checked !== box.defaultChecked)) view.set("columns", boxes.filter((box) => box.checked).map((box) => box.value).join());
    if (!form.intervals.checked) view.set("intervals", "off");
    history.replaceState(null, "", "#" + view);
    form.link.value = location.href;
  };

  board.on("draw", () => {
    write();
    const { recordsDisplay: shown, recordsTotal: all } = board.page.info();
    status.textContent = shown === all ? `All ${all} entries are shown.` : `${shown} of ${all} entries are shown.`;
  });
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      status.textContent = "The link is copied.";
    } catch {
      form.link.select(); // also where a page may not use the clipboard, its reader may
      status.textContent = "The link is selected, copy it.";
    }
  });
  addEventListener("hashchange", read);
  form.hidden = false;
  read();
}
