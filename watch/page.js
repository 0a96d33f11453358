"use strict";

const shades = 8;
const data = JSON.parse(document.getElementById("data").textContent);
const runs = []; // by their places on the command line
const byId = id => document.getElementById(id);
let begun = 0; // runs so far, those that took the place of others included

// element makes an element whose content is text or other elements, never markup.
function element(name, attributes, ...content) {
	const svg = ["svg", "rect", "text", "title"].includes(name);
	const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
	for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
	e.append(...content);
	return e;
}

const known = () => runs.filter(Boolean);
const label = run => element("span", {class: "shade" + run.shade}, element("span", {class: "swatch"}), run.name);

function number(v) {
	if (v === undefined || v === null) return "–";
	const size = Math.abs(v);
	if (size !== 0 && (size < 1e-3 || size >= 1e6)) return v.toExponential(2);
	return size >= 1000 ? v.toFixed(0) : String(Number(v.toPrecision(4)));
}

function duration(seconds) {
	const s = Math.round(seconds), pad = n => String(n).padStart(2, "0");
	return s < 60 ? s + " s" : s < 3600 ? Math.floor(s / 60) + ":" + pad(s % 60) + " min" : Math.floor(s / 3600) + ":" + pad(Math.floor(s % 3600 / 60)) + " h";
}

// take takes in what is new of a run.
function take(news) {
	if (news.begin) runs[news.run] = {...news.begin, number: ++begun, shade: news.run % shades, steps: [], evaluations: [], norms: []};
	const run = runs[news.run];
	if (!run) {
		byId("connection").textContent = news.trouble;
		return;
	}
	for (const r of news.records) (r.loss !== undefined ? run.steps : r.eval_loss !== undefined ? run.evaluations : run.norms).push(r);
	if (!news.begin && news.records.length) run.finished = false; // it goes on
	run.written = news.written || run.written;
	run.trouble = news.trouble;
}

let drawing = false;
function drawSoon() {
	if (drawing) return;
	drawing = true;
	requestAnimationFrame(() => { drawing = false; draw(); });
}

function draw() {
	const names = known().map(r => r.name);
	document.title = names.length ? names.join(", ") : "Training";
	byId("names").textContent = names.length ? names.join(", ") : "No run yet";
	byId("troubles").replaceChildren(...known().filter(r => r.trouble).map(r => element("p", {class: "trouble"}, r.trouble)));
	drawState();
	drawCharts();
	drawMoments();
	drawSettings();
}

// renew fills a part of the page again where its key has changed, so that nobody's selection is lost for nothing.
const keys = {};
function renew(id, key, make) {
	key = JSON.stringify(key);
	if (keys[id] === key) return;
	keys[id] = key;
	byId(id).replaceChildren(...make());
}

// smooth is the mean in which every value weighs a tenth less than the one after it.
function smooth(values) {
	let sum = 0, weight = 0;
	return values.map(v => (sum = 0.9 * sum + v, weight = 0.9 * weight + 1, sum / weight));
}

const total = (records, key) => records.reduce((sum, r) => sum + (r[key] ?? 0), 0);

function stateOf(run) {
	if (run.finished) return "finished";
	if (!run.written) return "begun";
	return data.live ? "newest line " + duration(Math.max(0, (Date.now() - run.written) / 1000)) + " ago" : "not finished at " + new Date(run.written).toLocaleString();
}

// part tells how much of the training has been made, from 0 to 1.
function part(run, last) {
	const steps = Number(run.settings["train.steps"]), epochs = Number(run.settings["train.epochs"]);
	return steps > 0 ? last.step / steps : (last.epoch ?? 0) / epochs;
}

function drawState() {
	const columns = ["Run", "State", "Step", "Done", "Training loss", "Held-out loss", "Lowest", "Learning rate", "Tokens/s", "Memory", "Time", "Left"];
	const rows = known().map(run => {
		const last = run.steps.at(-1), evaluation = run.evaluations.at(-1);
		const later = run.evaluations.filter(e => e.step > 0).map(e => e.eval_loss);
		const seconds = total(run.steps, "seconds") + total(run.evaluations, "seconds");
		const done = last ? part(run, last) : 0;
		const cells = [
			stateOf(run), last?.step ?? "0", done > 0 ? Math.min(100, 100 * done).toFixed(0) + "%" : "–",
			number(smooth(run.steps.map(s => s.loss)).at(-1)), number(evaluation?.eval_loss), later.length ? number(Math.min(...later)) : "–", last ? number(last.lr ?? 0) : "–",
			number(total(run.steps, "tokens") / total(run.steps, "seconds") || undefined), last?.memory ? (last.memory / 2 ** 30).toFixed(2) + " GiB" : "–",
			duration(seconds), !run.finished && done > 0 && done < 1 ? duration(seconds * (1 - done) / done) : "–",
		];
		return element("tr", {}, element("th", {scope: "row"}, label(run)), ...cells.map(c => element("td", {}, String(c))));
	});
	byId("state").replaceChildren(element("thead", {}, element("tr", {}, ...columns.map(c => element("th", {scope: "col"}, c)))), element("tbody", {}, ...rows));
}

// The charts: the lines of each are tables of steps and values.
const over = (records, value) => [records.map(r => r.step), records.map(value)];
const charts = [
	{title: "Loss per labelled token", lines: run => [
		{name: "training", table: over(run.steps, r => r.loss), thin: true},
		{name: "training, smoothed", table: [run.steps.map(r => r.step), smooth(run.steps.map(r => r.loss))]},
		{name: "held out", table: over(run.evaluations, r => r.eval_loss), points: true},
	].filter(line => !line.thin || known().length === 1)},
	{title: "Learning rate", lines: run => [{name: "learning rate", table: over(run.steps, r => r.lr ?? 0)}]},
	{title: "Tokens a second", lines: run => [{name: "tokens/s", table: over(run.steps, r => r.seconds ? r.tokens / r.seconds : null)}]},
	{title: "Most memory so far, GiB", lines: run => [{name: "GiB", table: over(run.steps, r => (r.memory ?? 0) / 2 ** 30)}]},
	{title: "Norm of the gradient, before clipping", lines: run => [{name: "norm", table: over(run.steps, r => r.grad_norm ?? 0)}]},
];

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function drawCharts() {
	for (const chart of charts) {
		if (!chart.figure) {
			chart.figure = element("figure", {}, element("h3", {}, chart.title));
			byId("charts").append(chart.figure);
			new ResizeObserver(() => chart.plot?.setSize(sizeOf(chart))).observe(chart.figure);
		}
		const lines = known().flatMap(run => chart.lines(run).map(line => ({...line, shade: run.shade, name: known().length > 1 ? run.name + (chart.lines(run).length > 1 ? ", " + line.name : "") : line.name})))
			.filter(line => line.table[0].length > 0);
		const values = lines.length ? uPlot.join(lines.map(line => line.table)) : [[]];
		const key = JSON.stringify(lines.map(line => [line.name, line.shade]));
		if (chart.key !== key) {
			chart.plot?.destroy();
			chart.key = key;
			chart.plot = new uPlot(options(chart, lines), values, chart.figure);
			continue;
		}
		// What a person has chosen to look at stays.
		const steps = chart.plot.data[0], x = chart.plot.scales.x;
		const whole = steps.length < 2 || x.min <= steps[0] && x.max >= steps.at(-1);
		chart.plot.setData(values, whole);
		if (!whole) chart.plot.redraw();
	}
}

function sizeOf(chart) {
	const style = getComputedStyle(chart.figure);
	return {width: Math.max(200, chart.figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)), height: chart === charts[0] ? 320 : 220};
}

function options(chart, lines) {
	const axis = {stroke: colour("--quiet"), grid: {stroke: colour("--rule"), width: 1}, ticks: {stroke: colour("--rule"), width: 1}, font: "12px system-ui, sans-serif"};
	return {
		...sizeOf(chart),
		scales: {x: {time: false}},
		axes: [axis, {...axis, size: 70, values: (_, list) => list.map(v => v === null ? "" : number(v))}],
		cursor: {sync: {key: "steps"}, drag: {x: true, y: false}},
		series: [{label: "step"}, ...lines.map(line => ({
			label: line.name, stroke: colour("--" + line.shade), width: line.thin ? 0.6 : 1.6, dash: line.points ? [6, 3] : undefined, spanGaps: true,
			points: {show: line.points || line.table[0].length === 1, size: 6}, value: (_, v) => number(v),
		}))],
	};
}

// A moment is a step of which there are answers or norms; the newest one is shown until another is chosen.
let moments = [], newest = true;

function drawMoments() {
	moments = [...new Set(known().flatMap(run => [...run.evaluations.filter(e => e.samples), ...run.norms].map(r => r.step)))].sort((a, b) => a - b);
	byId("moments").hidden = moments.length === 0;
	if (!moments.length) return;
	const slider = byId("moment");
	slider.max = moments.length - 1;
	if (newest) slider.value = slider.max;
	const step = moments[Number(slider.value)];
	byId("moment-step").textContent = step;
	slider.setAttribute("aria-valuetext", "step " + step);
	drawAnswers(step);
	drawLayers(step);
}

byId("moment").addEventListener("input", e => {
	newest = e.target.value === e.target.max;
	drawMoments();
});

const upTo = (records, step) => records.filter(r => r.step <= step).at(-1);

function drawAnswers(step) {
	const shown = known().map(run => ({run, record: upTo(run.evaluations.filter(e => e.samples), step)})).filter(s => s.record);
	const prompts = [...new Set(shown.flatMap(s => s.record.samples.map(sample => sample.prompt)))];
	renew("answers", shown.map(s => [s.run.number, s.record.step]), () => prompts.map(prompt => element("article", {class: "prompt"},
		element("div", {class: "ask"}, prompt),
		element("div", {class: "side"}, ...shown.flatMap(({run, record}) => record.samples.filter(s => s.prompt === prompt).map(s => element("div", {class: "answer shade" + run.shade},
			element("h3", {}, label(run), ", after step " + record.step), element("div", {class: "text"}, s.answer.trim()))))))));
}

function drawLayers(step) {
	const shown = known().map(run => ({run, record: upTo(run.norms, step)})).filter(s => s.record);
	const kinds = [...new Set(shown.flatMap(s => Object.keys(s.record.norms.grad)))].flatMap(name => [
		{title: "Gradient of " + name, name, of: norms => norms.grad[name] ?? []}, {title: "Value of " + name, name, of: norms => norms.value[name] ?? []},
	]);
	for (const kind of kinds) kind.values = shown.flatMap(s => kind.of(s.record.norms)).filter(v => v > 0);
	renew("layers", shown.map(s => [s.run.number, s.record.step]), () => shown.length ? [
		element("h2", {}, "Norms, layer by layer"),
		element("p", {class: "note"}, "A column is a block. The darker, the larger, on a logarithmic scale that all runs share; the gradient is that of the step, before clipping."),
		element("div", {class: "side"}, ...shown.map(({run, record}) => element("div", {class: "layers shade" + run.shade},
			element("h3", {}, label(run), ", after step " + record.step), ...kinds.flatMap(kind => layerMap(kind, record.norms))))),
	] : []);
}

// layerMap draws a cell for each layer, in a row for each kind of layer and a column for each block.
function layerMap(kind, norms) {
	const values = kind.of(norms);
	if (!values.length) return [];
	const places = norms.layers.map(name => /^blk\.(\d{1,4})\.(.+)$/.exec(name) ?? [name, "0", name]);
	const rows = [...new Set(places.map(p => p[2]))], columns = Math.max(...places.map(p => Number(p[1]))) + 1;
	const low = Math.min(...kind.values), high = Math.max(...kind.values);
	const left = 70, width = 16, height = 12;
	const svg = element("svg", {viewBox: `0 0 ${left + Math.max(columns, 20) * width} ${rows.length * height + 14}`, role: "img", "aria-label": kind.title + " a layer: " + number(low) + " to " + number(high)});
	rows.forEach((row, i) => svg.append(element("text", {x: left - 4, y: i * height + 9, "text-anchor": "end"}, row)));
	values.forEach((v, i) => {
		const at = v > 0 ? high > low ? Math.log(v / low) / Math.log(high / low) : 1 : 0;
		svg.append(element("rect", {
			x: left + Number(places[i][1]) * width, y: rows.indexOf(places[i][2]) * height, width, height, "fill-opacity": (v > 0 ? 0.06 + 0.94 * at : 0).toFixed(3),
		}, element("title", {}, norms.layers[i] + ": " + number(v))));
	});
	for (const column of new Set([0, columns - 1])) svg.append(element("text", {x: left + (column + 0.5) * width, y: rows.length * height + 11, "text-anchor": "middle"}, String(column)));
	return [element("h4", {}, kind.title + ": " + (kind.values.length ? number(low) + " to " + number(high) : "0")), svg];
}

function drawSettings() {
	const keys = [...new Set(known().flatMap(run => Object.keys(run.settings)))].sort();
	const rows = keys.map(key => ({key, values: known().map(run => run.settings[key] ?? "")})).map(r => ({...r, differs: new Set(r.values).size > 1}));
	rows.sort((a, b) => b.differs - a.differs);
	renew("settings", known().map(run => run.number), () => [
		element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "Setting"), ...known().map(run => element("th", {scope: "col"}, label(run))))),
		element("tbody", {}, ...rows.map(r => element("tr", r.differs ? {class: "differs"} : {}, element("th", {scope: "row"}, r.key), ...r.values.map(v => element("td", {}, v))))),
	]);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
	for (const chart of charts) chart.key = undefined;
	drawSoon();
});

for (const news of data.runs ?? []) take(news);
draw();
if (data.live) {
	const source = new EventSource("events");
	source.onopen = () => byId("connection").textContent = "live";
	source.onerror = () => byId("connection").textContent = "The connection is lost; trying again.";
	source.onmessage = event => {
		take(JSON.parse(event.data));
		drawSoon();
	};
	setInterval(drawState, 5000);
}
