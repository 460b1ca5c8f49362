"use strict";

const find = (selector, root = document) => root.querySelector(selector);
const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

setUpTheme();
if (find("#gallery-data")) setUpGallery();
findAll(".plot").forEach(setUpChart);
document.documentElement.classList.add("ready");

function setUpTheme() {
  const root = document.documentElement;
  const button = find("#theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("captionkit-theme", root.dataset.theme);
    } catch {
      // the choice then lasts as long as the page
    }
    show();
  });
  system.addEventListener("change", show);
  show();
}

function setUpGallery() {
  const { measures, rows } = JSON.parse(find("#gallery-data").textContent);
  const list = find("#cards");
  const cards = findAll(".card", list).map((element, i) => ({
    element,
    values: rows[i],
    id: element.dataset.id,
    text: null,
  }));
  const form = find("#filters");
  const control = (id) => find(`#${id}`, form);
  const firstPage = matchMedia("(min-width: 48rem)").matches ? 12 : 6;
  const collator = new Intl.Collator(undefined, { numeric: true });
  let shown = firstPage;
  let matching = [];
  let orderNow = "";

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => update(firstPage));
  form.addEventListener("reset", () => setTimeout(() => update(firstPage)));
  find("#show-more").addEventListener("click", () => showUpTo(shown + 24));
  find("#show-all").addEventListener("click", () => showUpTo(cards.length));
  findAll(".hit[data-key]").forEach((bar) => bar.addEventListener("click", () => filterBy(bar)));
  update(firstPage);

  function update(count) {
    sort();
    const query = control("query").value.trim().toLowerCase();
    const accepts = rangeFilter();
    matching = cards.filter((card) => accepts(card) && contains(card, query));
    shown = count;
    show();
  }

  function sort() {
    const by = control("sort-by")?.value ?? "id";
    const measure = measures[by];
    nameEnds(measure);
    const bestFirst = find('[name="order"][value="best"]', form)?.checked ?? false;
    if (orderNow === `${by} ${bestFirst}`) return;
    orderNow = `${by} ${bestFirst}`;
    const sign = (measure ? measure.descending : false) === bestFirst ? 1 : -1;
    const byId = (a, b) => collator.compare(a.id, b.id);
    cards.sort((a, b) => {
      if (!measure) return sign * byId(a, b);
      const [x, y] = [a.values[by], b.values[by]];
      // images without the value come last, whichever end is first
      if (x === null || y === null) return (x === null) - (y === null) || byId(a, b);
      return sign * (x - y) || byId(a, b);
    });
    list.append(...cards.map((card) => card.element));
  }

  function nameEnds(measure) {
    const ends = measure ? measure.ends : ["A to Z", "Z to A"];
    findAll(".segments span", form).forEach((span, i) => (span.textContent = ends[i]));
  }

  function rangeFilter() {
    const column = control("measure")?.value;
    const least = control("least")?.valueAsNumber ?? NaN;
    const below = control("below")?.valueAsNumber ?? NaN;
    if (Number.isNaN(least) && Number.isNaN(below)) return () => true;
    return ({ values }) =>
      values[column] !== null && !(values[column] < least) && !(values[column] >= below);
  }

  function contains(card, query) {
    if (!query) return true;
    card.text ??= searchText(card);
    return query.split(/\s+/).every((word) => card.text.includes(word));
  }

  function searchText({ id, element }) {
    // what is said of the image, without our own labels and figures
    const said = findAll(".caption, .reference, .before, .words li", element);
    const nodes = said.flatMap((e) => [...e.childNodes]).filter((n) => n.className !== "tag");
    return [id, ...nodes.map((node) => node.textContent)].join(" ").toLowerCase();
  }

  function show() {
    const visible = new Set(matching.slice(0, shown));
    for (const card of cards) card.element.hidden = !visible.has(card);
    const total = matching.length.toLocaleString("en");
    const images = matching.length === 1 ? "image" : "images";
    const of = matching.length < cards.length ? ` of ${cards.length.toLocaleString("en")}` : "";
    const part = visible.size < matching.length ? `, first ${visible.size} shown` : "";
    find("#count").textContent = matching.length
      ? `${total}${of} ${images}${part}`
      : "No image matches. Reset the filters to see all.";
    find("#more").hidden = visible.size >= matching.length;
    find("#show-more").textContent = `Show ${Math.min(24, matching.length - visible.size)} more`;
    find("#show-all").textContent = `Show all ${total}`;
  }

  function showUpTo(count) {
    const next = matching[shown];
    shown = count;
    show();
    next?.element.focus({ preventScroll: true });
  }

  function filterBy({ dataset }) {
    const column = measures.findIndex((measure) => measure.key === dataset.key);
    if (column < 0) return;
    control("measure").value = column;
    control("least").value = dataset.low;
    control("below").value = dataset.below;
    update(firstPage);
    find("#gallery").scrollIntoView();
  }
}

function setUpChart(plot) {
  const lines = JSON.parse(plot.dataset.hover);
  const figure = plot.closest("figure");
  const readout = find(".readout", figure);
  const spoken = find("[aria-live]", figure);
  const cross = find(".cross", plot);
  const texts = findAll("b", readout);
  const stepText = find(".step", readout);
  const atRest = [...texts.map((text) => text.textContent), stepText.textContent];
  const places = [...new Map(lines.flatMap((l) => l.points.map((p) => [p[0], p[2]]))).entries()];
  places.sort((a, b) => a[0] - b[0]);
  let at = places.length - 1;

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * plot.viewBox.baseVal.width;
    at = nearest(places, x);
    show();
  });
  plot.addEventListener("pointerleave", rest);
  plot.addEventListener("blur", rest);
  plot.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: places.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    at = Math.max(0, Math.min(places.length - 1, moves[event.key]));
    spoken.textContent = show();
  });

  function show() {
    const [x, step] = places[at];
    cross.setAttribute("d", `M${x} 26V168`);
    plot.classList.add("reading");
    stepText.textContent = `at step ${step}`;
    const said = lines.map((line, i) => {
      const point = line.points[nearest(line.points, x)];
      // a line that was logged elsewhere has no value here
      texts[i].textContent = point && Math.abs(point[0] - x) < 6 ? point[3] : "–";
      return `${line.name} ${texts[i].textContent}`;
    });
    return `Step ${step}: ${said.join(", ")}`;
  }

  function rest() {
    plot.classList.remove("reading");
    texts.forEach((text, i) => (text.textContent = atRest[i]));
    stepText.textContent = atRest.at(-1);
  }

  function nearest(points, x) {
    let best = 0;
    points.forEach((p, i) => {
      if (Math.abs(p[0] - x) < Math.abs(points[best][0] - x)) best = i;
    });
    return best;
  }
}
