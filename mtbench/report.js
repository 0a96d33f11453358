"use strict";
(() => {
	const at = id => document.getElementById(id);
	const list = at("questions"), asked = [...list.children];
	const byDifference = [...asked].sort((a, b) => Number(b.dataset.apart) - Number(a.dataset.apart));
	const words = new Map();
	const contains = (q, text) => {
		if (!words.has(q)) words.set(q, q.textContent.toLowerCase());
		return words.get(q).includes(text);
	};

	const filter = () => {
		const category = at("category").value, text = at("search").value.trim().toLowerCase();
		let shown = 0;
		for (const q of asked) {
			q.hidden = category !== "" && q.dataset.category !== category || text !== "" && !contains(q, text);
			if (!q.hidden) shown++;
		}
		at("count").textContent = shown + " of " + asked.length + " questions";
	};
	const order = () => list.append(...(at("order").value === "apart" ? byDifference : asked));
	const choose = () => {
		const chosen = new Set([...document.querySelectorAll("input[name=model]:checked")].map(box => box.value));
		for (const part of list.querySelectorAll("[data-model]")) {
			part.hidden = !chosen.has(part.dataset.model) || "other" in part.dataset && !chosen.has(part.dataset.other);
		}
	};

	at("category").addEventListener("change", filter);
	at("search").addEventListener("input", filter);
	at("order").addEventListener("change", order);
	for (const box of document.querySelectorAll("input[name=model]")) box.addEventListener("change", choose);
	at("tools").addEventListener("submit", event => event.preventDefault());
	// A browser that goes back to the page keeps what was typed and chosen.
	filter();
	order();
	choose();
	at("tools").hidden = false;
})();
