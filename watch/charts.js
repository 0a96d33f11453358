"use strict";

const byId = id => document.getElementById(id);

// element makes an element whose content is text or other elements, never markup.
function element(name, attributes, ...content) {
	const e = document.createElement(name);
	for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
	e.append(...content);
	return e;
}

function number(v) {
	if (v === undefined || v === null) return "–";
	const size = Math.abs(v);
	if (size !== 0 && (size < 1e-3 || size >= 1e6)) return v.toExponential(2);
	return size >= 1000 ? v.toFixed(0) : String(Number(v.toPrecision(4)));
}

// The charts are drawn by veratune. A figure holds the picture of one, and its legend, which tells the values at the step that is pointed at, or else the newest ones.
const figures = [];
let charts = [], chosenView = 0, pointed = null;

function drawCharts() {
	const views = Math.max(0, ...charts.map(c => c.views.length));
	byId("views").hidden = views < 2;
	charts.forEach((chart, i) => {
		figures[i] ??= newFigure(chart);
		const figure = figures[i], view = chart.views[Math.min(chosenView, views - 1)] ?? chart.views[0];
		figure.chart = chart;
		if (figure.view?.svg !== view.svg) figure.shown = show(figure, view);
		figure.view = view;
		figure.picture.hidden = chart.lines.length === 0;
		figure.legend.replaceChildren(...(chart.lines.length ? chart.lines.map(line => element("li", {class: "shade" + line.shade},
			element("span", {class: "sample " + line.style}), line.name, " ", element("output", {}))) : [element("li", {}, "No step yet")]));
	});
	point(pointed);
}

function newFigure(chart) {
	const picture = element("div", {class: "picture", tabindex: "0", role: "slider", "aria-label": chart.title + ", step"}), legend = element("ul", {class: "legend"});
	const rule = element("span", {class: "rule"});
	picture.append(rule);
	byId("charts").append(element("figure", {}, element("h3", {}, chart.title), picture, element("figcaption", {}, legend)));
	const figure = {picture, legend, rule};
	picture.addEventListener("pointermove", e => {
		const box = picture.getBoundingClientRect(), v = figure.view;
		point(v.from + ((e.clientX - box.left) / box.width - v.left) / (v.right - v.left) * (v.to - v.from));
	});
	picture.addEventListener("pointerleave", () => point(null));
	picture.addEventListener("blur", () => point(null));
	picture.addEventListener("keydown", e => {
		const way = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1}[e.key], steps = stepsOf(figure);
		if (!way || !steps.length) return;
		e.preventDefault();
		const at = pointed === null ? steps.length - 1 : nearest(steps, pointed);
		point(steps[Math.min(steps.length - 1, Math.max(0, at + way))]);
	});
	return figure;
}

// show puts another picture in place once it can be painted.
async function show(figure, view) {
	const image = element("img", {alt: "", width: "460", height: "270"});
	image.src = "data:image/svg+xml," + encodeURIComponent(view.svg);
	await image.decode();
	if (figure.view !== view) return;
	figure.image?.remove();
	figure.image = image;
	figure.picture.prepend(image);
}

const stepsOf = figure => [...new Set(figure.chart.lines.flatMap(line => line.steps))].filter(s => s >= figure.view.from).sort((a, b) => a - b);

// nearest is the place of the step that is nearest to another, in a list that rises.
function nearest(steps, step) {
	let low = 0, high = steps.length - 1;
	while (low < high) {
		const middle = (low + high) >> 1;
		if (steps[middle] + steps[middle + 1] >= 2 * step) high = middle;
		else low = middle + 1;
	}
	return low;
}

// point tells, in all charts, the values at a step, or the newest ones where that is null.
function point(step) {
	for (const {chart, view, picture, legend, rule} of figures) {
		const steps = stepsOf({chart, view});
		if (!steps.length) continue;
		const at = step === null ? steps.at(-1) : steps[nearest(steps, step)];
		const texts = chart.lines.map(line => {
			const i = nearest(line.steps, at);
			return number(line.values[i]) + (line.steps[i] === at ? "" : " (step " + line.steps[i] + ")");
		});
		[...legend.children].forEach((item, i) => item.lastChild.textContent = texts[i]);
		rule.hidden = step === null;
		rule.style.left = 100 * (view.left + (at - view.from) / (view.to - view.from) * (view.right - view.left)) + "%";
		for (const [key, value] of [["valuemin", steps[0]], ["valuemax", steps.at(-1)], ["valuenow", at], ["valuetext", "step " + at + ": " + chart.lines.map((line, i) => line.name + " " + texts[i]).join(", ")]])
			picture.setAttribute("aria-" + key, value);
	}
	pointed = step;
}

byId("views").addEventListener("change", e => {
	chosenView = Number(e.target.value);
	drawCharts();
});
