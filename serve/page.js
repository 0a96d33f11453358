let key = sessionStorage.getItem("key") ?? "";

// failed is the error of a request that the server refused.
class Failed extends Error {
	constructor(status, message) {
		super(message);
		this.status = status;
	}
}

// ask makes a request to the API, and gives the response.
async function ask(path, options = {}) {
	const headers = {...options.headers};
	if (key) headers.Authorization = "Bearer " + key;
	const response = await fetch("v1/" + path, {...options, headers});
	if (response.ok) return response;
	const {error} = await response.json().catch(() => ({error: {message: response.statusText}}));
	if (response.status === 401) {
		byId("service").hidden = true;
		byId("key-form").hidden = false;
	}
	throw new Failed(response.status, error.message);
}

const get = async path => (await ask(path)).json();
const post = (path, body) => ask(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});

// tell shows what came of something, in an element that screen readers follow.
function tell(id, text, bad = false) {
	byId(id).textContent = text;
	byId(id).classList.toggle("bad", bad);
}

// guarded runs something that a person has asked for, and says why it failed.
async function guarded(id, work) {
	try {
		await work();
	} catch (error) {
		tell(id, error.message, true);
	}
}

byId("key-form").addEventListener("submit", event => {
	event.preventDefault();
	key = byId("key").value;
	sessionStorage.setItem("key", key);
	byId("key").value = "";
	begin();
});

// Models.

let base = "";
const models = new Set();

async function showModels() {
	const {data} = await get("models");
	base = data.find(m => !m.parent)?.id ?? "";
	byId("base").textContent = base;
	const names = data.filter(m => m.parent).sort((a, b) => b.created - a.created).map(m => m.id);
	if (names.length === models.size && names.every(n => models.has(n))) return;
	if (!models.size && !byId("adapter").value) byId("adapter").value = names[0] ?? "";
	models.clear();
	for (const name of names) models.add(name);
	byId("adapters").replaceChildren(...names.map(name => element("option", {value: name})));
}

// Chat. Each model has the conversation with its own answers.

let asked = []; // messages of the person
let answers = new Map(); // of each model, by its name
let answering = null; // AbortController

const chosenModels = () => {
	const adapter = byId("adapter").value.trim();
	return adapter && adapter !== base ? byId("beside").checked ? [adapter, base] : [adapter] : [base];
};

byId("chat-form").addEventListener("submit", async event => {
	event.preventDefault();
	const text = byId("message").value.trim();
	if (!text || answering) return;
	byId("message").value = "";
	asked.push(text);
	answering = new AbortController();
	setAnswering(true);
	const side = element("div", {class: "side"});
	byId("turns").append(element("article", {class: "prompt"}, element("div", {class: "ask"}, text), side));
	await Promise.all(chosenModels().map((model, i) => answer(model, i, side)));
	answering = null;
	setAnswering(false);
	byId("message").focus();
});

function setAnswering(on) {
	byId("send").disabled = on;
	byId("stop").disabled = !on;
}

byId("stop").addEventListener("click", () => answering?.abort());
byId("anew").addEventListener("click", () => {
	answering?.abort();
	asked = [];
	answers = new Map();
	byId("turns").replaceChildren();
});
byId("message").addEventListener("keydown", event => {
	if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
	event.preventDefault();
	byId("chat-form").requestSubmit();
});

// answer has a model answer the newest message. A model that was not asked before answers without those before.
async function answer(model, place, side) {
	const said = answers.get(model) ?? [];
	answers.set(model, said);
	const turn = asked.length - 1;
	const messages = asked.flatMap((content, i) => i === turn ? [{role: "user", content}] : said[i] ? [{role: "user", content}, {role: "assistant", content: said[i]}] : []);
	const text = element("div", {class: "text"});
	side.append(element("div", {class: "answer shade" + place}, element("h3", {}, element("span", {class: "swatch"}), model), text));
	try {
		const response = await ask("chat/completions", {method: "POST", headers: {"Content-Type": "application/json"}, signal: answering.signal,
			body: JSON.stringify({model, messages, stream: true, temperature: Number(byId("temperature").value), max_completion_tokens: Number(byId("tokens").value) || undefined})});
		for await (const chunk of events(response)) {
			if (chunk.error) throw new Error(chunk.error.message);
			text.append(chunk.choices[0]?.delta?.content ?? "");
		}
	} catch (error) {
		if (error.name !== "AbortError") text.append(element("p", {class: "bad", role: "alert"}, error.message));
	}
	said[turn] = text.firstChild?.nodeType === Node.TEXT_NODE ? [...text.childNodes].filter(n => n.nodeType === Node.TEXT_NODE).map(n => n.data).join("") : "";
}

// events gives the objects of a stream of server-sent events.
async function* events(response) {
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	for (let rest = "";;) {
		const {value, done} = await reader.read();
		if (done) return;
		const lines = (rest + value).split("\n");
		rest = lines.pop();
		for (const line of lines) {
			if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
		}
	}
}

// Files of rows.

const bytes = n => n < 1000 ? n + " bytes" : n < 1e6 ? (n / 1e3).toFixed(1) + " kB" : (n / 1e6).toFixed(1) + " MB";

async function showFiles() {
	const {data} = await get("files?purpose=fine-tune");
	byId("files").replaceChildren(...data.map(file => {
		const remove = element("button", {type: "button", "aria-label": "Delete " + file.filename}, "Delete");
		remove.addEventListener("click", () => guarded("upload-state", async () => {
			await ask("files/" + file.id, {method: "DELETE"});
			await showFiles();
			tell("upload-state", file.filename + " is deleted.");
		}));
		return element("li", {}, file.filename, element("span", {class: "note"}, bytes(file.bytes)), remove);
	}));
	for (const [id, none] of [["training-file", null], ["validation-file", "none"]]) {
		const select = byId(id), chosen = select.value;
		select.replaceChildren(...none ? [element("option", {value: ""}, none)] : [], ...data.map(file => element("option", {value: file.id}, file.filename)));
		if (data.some(file => file.id === chosen)) select.value = chosen;
	}
}

byId("upload-form").addEventListener("submit", event => {
	event.preventDefault();
	guarded("upload-state", async () => {
		const body = new FormData(), file = byId("file").files[0];
		body.append("purpose", "fine-tune");
		body.append("file", file);
		tell("upload-state", "Uploading " + file.name + " …");
		byId("upload").disabled = true;
		try {
			await ask("files", {method: "POST", body});
		} finally {
			byId("upload").disabled = false;
		}
		byId("file").value = "";
		await showFiles();
		tell("upload-state", file.name + " is uploaded.");
	});
});

// Jobs.

let jobs = [], selected = "";

byId("job-form").addEventListener("submit", event => {
	event.preventDefault();
	guarded("job-state", async () => {
		const hyperparameters = {method: byId("method").value};
		for (const name of ["n_epochs", "rank", "batch_size", "learning_rate", "max_length", "patience"]) {
			if (byId(name).value) hyperparameters[name] = Number(byId(name).value);
		}
		const request = {model: base, training_file: byId("training-file").value, method: {type: "supervised", supervised: {hyperparameters}}};
		for (const [name, id] of [["validation_file", "validation-file"], ["suffix", "suffix"]]) {
			if (byId(id).value) request[name] = byId(id).value;
		}
		if (byId("seed").value) request.seed = Number(byId("seed").value);
		const job = await (await post("fine_tuning/jobs", request)).json();
		tell("job-state", "Job " + job.id + " has begun.");
		selected = job.id;
		await showJobs();
	});
});

const states = {validating_files: "checking the rows", queued: "waiting", running: "training", paused: "paused", succeeded: "done", failed: "failed", cancelled: "cancelled"};
const allowed = {validating_files: ["pause", "cancel"], queued: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"], failed: ["resume"]};
const names = {pause: "Pause", resume: "Go on", cancel: "Cancel"};
const jobName = job => job.fine_tuned_model ?? (job.user_provided_suffix || job.id);
const when = seconds => element("time", {datetime: new Date(1000 * seconds).toISOString()}, new Date(1000 * seconds).toLocaleString());

async function showJobs() {
	jobs = (await get("fine_tuning/jobs?limit=100")).data;
	const focus = document.activeElement?.id;
	const rows = jobs.map(job => {
		const show = element("button", {type: "button", id: "show-" + job.id, "aria-pressed": String(job.id === selected)}, "Show");
		show.addEventListener("click", () => guarded("job-state", async () => {
			selected = job.id;
			await showJobs();
		}));
		const changes = (allowed[job.status] ?? []).map(change => {
			const button = element("button", {type: "button", id: change + "-" + job.id}, names[change]);
			button.addEventListener("click", () => guarded("job-state", async () => {
				await post("fine_tuning/jobs/" + job.id + "/" + change);
				tell("job-state", "");
				await showJobs();
			}));
			return button;
		});
		const until = job.status === "running" && job.estimated_finish ? when(job.estimated_finish) : job.finished_at ? when(job.finished_at) : "–";
		return element("tr", {"aria-current": String(job.id === selected)}, element("th", {scope: "row"}, jobName(job)), element("td", {}, states[job.status] ?? job.status),
			element("td", {}, when(job.created_at)), element("td", {}, until), element("td", {}, element("span", {class: "buttons"}, show, ...changes)));
	});
	byId("jobs").replaceChildren(element("thead", {}, element("tr", {}, ...["Job", "State", "Begun", "Done", "Do"].map(c => element("th", {scope: "col"}, c)))), element("tbody", {}, ...rows));
	byId("jobs").hidden = !jobs.length;
	if (focus) byId(focus)?.focus();
	await showJob();
}

let drawn = ""; // the job that is shown, and its state

// showJob shows the selected job's charts and events.
async function showJob() {
	const job = jobs.find(j => j.id === selected);
	byId("job").hidden = !job;
	if (!job) return;
	byId("job-title").textContent = jobName(job);
	const h = job.hyperparameters;
	tell("job-about", [states[job.status], h.method + ", rank " + h.rank, "epochs " + h.n_epochs, "rows a step " + h.batch_size, "learning rate " + h.learning_rate, job.error?.message].filter(Boolean).join("; "), Boolean(job.error));
	const state = job.id + " " + job.status;
	if (state === drawn && job.status !== "running") return;
	drawn = state;
	const {data} = await get("fine_tuning/jobs/" + job.id + "/events?limit=50");
	if (selected !== job.id) return;
	byId("events").replaceChildren(...data.map(e => element("li", {class: e.level}, when(e.created_at), element("span", {}, e.message))));
	charts = await get("fine_tuning/jobs/" + job.id + "/charts");
	drawCharts();
	if (job.status === "succeeded") await showModels();
}

// What goes on is asked for while somebody looks, more often while there is something to see.
const active = () => jobs.some(job => ["validating_files", "queued", "running"].includes(job.status));
async function follow() {
	for (;;) {
		if (!document.hidden && !byId("service").hidden) {
			try {
				if (!byId("training").hidden) await showJobs();
				tell("connection", "");
			} catch (error) {
				if (error.status !== 401) tell("connection", "The connection is lost; trying again.");
			}
		}
		await new Promise(done => setTimeout(done, active() ? 2000 : 10000));
	}
}

// begin shows all there is, once the server lets the page in.
async function begin() {
	try {
		await showModels();
		byId("key-form").hidden = true;
		byId("service").hidden = false;
		tell("connection", "");
	} catch (error) {
		tell("connection", error.status === 401 && !key ? "" : error.message, true);
		return;
	}
	try {
		await showFiles();
		await showJobs();
		byId("training").hidden = false;
	} catch (error) {
		if (error.status !== 404) tell("connection", error.message, true); // else this server trains nothing
	}
}

begin();
follow();
