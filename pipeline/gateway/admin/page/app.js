/** The page: asks for the key, reads `/latency/now` once a second while the tab is visible, and shows it. */

import { forgetKey, keepKey, readNow, takeKey, WrongKey } from "./api.js";
import { byId, column, make, put, setText, Table } from "./dom.js";
import { Flow } from "./flow.js";
import { HeatMap } from "./heat.js";
import { History, sumOf } from "./history.js";
import { PartiesChart } from "./parties.js";
import { Requests } from "./requests.js";
import { quantilesMs } from "./slots.js";
import { nextTheme } from "./theme.js";
import { clock, clockOf, duration, figure, percent } from "./units.js";
import { openWaterfall } from "./waterfall.js";

const EVERY_MS = 1000;
const MOST_BACKOFF_MS = 15_000;
const SPANS_S = [120, 300];
const NOT_FAILED = { OK: 0, DC: 0, DS: 0 };

let spanS = SPANS_S[0];
let history = new History();
let failures = 0;
let isReading = false;
let failingSince, timer, parts;

function board() {
	const open = (request) => request.request_id && openWaterfall(request, () => history.latest?.stalls ?? []);
	return {
		chart: new PartiesChart(), heat: new HeatMap(), flow: new Flow(),
		requests: new Requests(open),
		stalls: new Table(byId("stalls"), [
			column("ended", (one) => clockOf(one.ts), { width: "76px" }),
			column("stage", (one) => one.stage ?? "no single one", { left: true }),
			column("held", (one) => duration(one.ms), { width: "66px" }),
			column("waiting", (one) => figure(one.streams), { width: "56px", about: "how many requests waited" }),
			column("worker", (one) => one.worker, { width: "52px" }),
		], (one) => `${one.ts} ${one.worker}`, open),
		workers: new Table(byId("workers"), [
			column("", (one) => `${one.worker}${one.alive ? "" : " (ended)"}`),
			column("lag", (one) => duration(one.lag_s * 1000), { about: "how late the loop comes to what is due" }),
			column("memory", (one) => `${Math.round(one.resident_bytes / 2 ** 20)} MiB`),
			column("in flight", (one) => figure(one.in_flight)),
			column("sockets", (one) => `${figure(one.client_sockets)} + ${figure(one.upstream_sockets)}`, { about: "of clients + of upstreams", width: "30%" }),
		], (one) => one.worker),
	};
}

function show(now) {
	const started = performance.now();
	parts ??= board();
	const recent = history.recent();
	put("version", now.headrace);
	parts.chart.show(history.samples, now.now_s, spanS);
	parts.heat.show(history.samples, now.now_s, spanS);
	if (recent) parts.flow.show(recent, now);
	parts.requests.show(now);
	const stalls = [...(now.stalls ?? [])].sort((one, other) => (one.ts < other.ts ? 1 : -1)).slice(0, 8);
	parts.stalls.show(stalls);
	put("stalls-none", stalls.length ? "" : "None: no stage has held the loop for more than 20 ms.");
	parts.workers.show(now.workers ?? []);
	showTiles(recent, now);
	byId("empty").hidden = sumOf(now.ended) > 0 || now.in_flight > 0;
	performance.clearMeasures();
	performance.measure("tick", { start: started });
}

function showTiles(recent, now) {
	const ended = recent && sumOf(recent.ended);
	const failed = recent && sumOf({ ...recent.ended, ...NOT_FAILED });
	const pair = (name) => {
		const [half, most] = quantilesMs(recent?.histograms[name], 0.5, 0.99);
		return half === undefined ? ["–"] : [duration(half), ` · ${duration(most)}`];
	};
	const lagMs = 1000 * Math.max(0, ...(now.workers ?? []).map((one) => one.lag_s));
	const oursShare = recent?.party_s.ours / sumOf(recent?.party_s);
	tile("in flight", figure(now.in_flight));
	tile("ended per second", figure(ended / recent?.forS));
	tile("failed per second", figure(failed / recent?.forS), now.lost ? ` ${figure(now.lost)} lost` : "", failed > 0);
	tile("first token p50 · p99", ...pair("first_token"));
	tile("transit p50 · p99", ...pair("transit"));
	tile("gap to client p50 · p99", ...pair("gap_client"));
	tile("of the time is ours", percent(oursShare));
	tile("longest loop lag", duration(lagMs), "", lagMs > 50);
}

function tile(name, value, more = "", isBad = false) {
	let box = byId(`tile ${name}`);
	if (!box) byId("tiles").append((box = make("div", { id: `tile ${name}` }, make("dt", {}, name), make("dd", {}, make("span"), make("small")))));
	const [main, small] = box.lastChild.children;
	setText(main, value);
	setText(small, more);
	box.className = isBad ? "bad" : "";
}

function say(state, text) {
	byId("status").dataset.state = state;
	put("status", text);
}

async function read() {
	clearTimeout(timer);
	if (isReading || document.visibilityState === "hidden" || byId("board").hidden) return;
	const began = performance.now();
	isReading = true;
	let waitMs = EVERY_MS;
	try {
		const now = await readNow();
		history.add(now);
		failures = 0;
		failingSince = null;
		show(now);
		say("live", "live");
	} catch (error) {
		if (error instanceof WrongKey) return askForKey(error.message);
		failures += 1;
		failingSince ??= Date.now() / 1000;
		waitMs = Math.min(MOST_BACKOFF_MS, EVERY_MS * 2 ** failures);
		say("bad", `Cannot reach the service since ${clock(failingSince)}: ${error.message}. Next try in ${waitMs / 1000} s.`);
	} finally {
		isReading = false;
	}
	timer = setTimeout(read, Math.max(100, waitMs - (performance.now() - began)));
}

function showKeyForm(isAsking) {
	byId("door").hidden = !isAsking;
	byId("board").hidden = byId("forget").hidden = isAsking;
}

function askForKey(why = "") {
	forgetKey();
	clearTimeout(timer);
	byId("waterfall").close();
	showKeyForm(true);
	put("key-error", why);
	say("idle", "waiting for the key");
	byId("key").focus();
}

function enter() {
	showKeyForm(false);
	history = new History();
	say("idle", "reading");
	read();
}

const onClick = (id, action) => byId(id).addEventListener("click", action);
byId("key-form").addEventListener("submit", (event) => {
	event.preventDefault();
	keepKey(byId("key").value.trim());
	byId("key").value = "";
	enter();
});
onClick("forget", () => askForKey());
onClick("theme", nextTheme);
onClick("help", () => byId("help-text").showModal());
onClick("help-close", () => byId("help-text").close());
onClick("span", () => {
	spanS = SPANS_S[(SPANS_S.indexOf(spanS) + 1) % SPANS_S.length];
	put("span", `${spanS / 60} min`);
	if (history.latest) show(history.latest);
});
document.addEventListener("visibilitychange", () => {
	if (document.visibilityState === "hidden") say("idle", "paused while this tab is hidden");
	else read();
});
document.addEventListener("keydown", (event) => {
	if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, dialog, dialog *")) return;
	byId({ w: "span", t: "theme", "?": "help" }[event.key])?.click();
});
byId("curl").textContent = `curl -N ${location.origin}/cursor/chat/completions \\
  -H 'Authorization: Bearer YOUR-KEY' -H 'Content-Type: application/json' \\
  -d '{"model": "YOUR-MODEL", "input": "Tell me a story", "stream": true}'`;

if (takeKey()) enter();
else askForKey();
