/** The lists of requests: slow, failed, cancelled, stalled and running ones as they come, recent and traced on demand. */

import { readRequests } from "./api.js";
import { byId, chooser, column, put, Table } from "./dom.js";
import { PARTIES, sumOf } from "./history.js";
import { clockOf, duration, figure, shortId } from "./units.js";

const ASKED_FOR = ["recent", "traced"];
const NONE = {
	slow: "No request was slow; all are under recent.", failed: "No request has failed.", cancelled: "No client has left early.",
	stalled: "No request has held up the others.", running: "Nothing is running.", recent: "No request has ended yet.",
	traced: "No request was traced per batch.",
};
const LIMIT = 40;

/** Return what a request asked for and where it went. */
export const routeOf = (one) => [one.model, one.deployment].filter((name) => name != null).join(" → ");

/** Return the parts and the label of a bar of the parties' times. */
export function partyBar(times) {
	const total = Math.max(1e-9, sumOf(times));
	const parties = PARTIES.map((party) => [party, times?.[party] ?? 0]);
	return {
		parts: parties.map(([party, ms]) => [party, ms / total]),
		label: parties.map(([party, ms]) => `${party} ${duration(ms)}`).join(", "),
	};
}

const width = (px, left) => ({ width: `${px}px`, left });
const id = column("id", (one) => ({ text: shortId(one.request_id), title: one.request_id, class: "left mono" }), width(112, true));
const model = column("model → deployment", (one) => ({ text: routeOf(one), title: routeOf(one) }), { left: true });
const worker = column("worker", (one) => one.worker, width(56));
const ENDED = [
	column("ended", (one) => clockOf(one.ts), width(70)),
	id,
	column("end", (one) => ({ text: `${one.end} ${one.status ?? ""}`, class: one.end === "OK" ? "left end" : "left end bad" }), width(68, true)),
	model,
	column("first token", (one) => duration(one.first_token_ms), width(78)),
	column("total", (one) => duration(one.total_ms), width(74)),
	column("whose time", (one) => partyBar(one.party_ms), { bar: true, width: "17%" }),
	worker,
];
const RUNNING = [
	column("age", (one) => duration(one.age_ms), width(70)),
	id,
	column("waits for", (one) => one.waits_for, width(74, true)),
	model,
	column("last point", (one) => one.point, width(122, true)),
	column("events", (one) => figure(one.events), width(58)),
	column("idle for", (one) => duration(one.idle_ms), width(74)),
	worker,
];

export class Requests {
	/** `onOpen(request)` is called with a summary or a running request. */
	constructor(onOpen) {
		this.onOpen = onOpen;
		chooser(byId("tabs"), "tab", Object.keys(NONE).map((kind) => [kind, kind]), (kind) => this.choose(kind))("slow");
	}

	choose(kind) {
		const wasRunning = this.kind === "running";
		this.kind = kind;
		byId("tab-panel").setAttribute("aria-labelledby", `tab-${kind}`);
		if (!this.table || wasRunning !== (kind === "running")) {
			const columns = kind === "running" ? RUNNING : ENDED;
			this.table = new Table(byId("request-list"), columns, (one) => one.request_id, this.onOpen);
		}
		this.asked = null;
		this.list([], "");
		this.show(this.now);
	}

	/** Show the list of the chosen tab as of a reading of `/latency/now`. */
	show(now) {
		this.now = now;
		if (!now) return;
		put("tab-running", now.in_flight ? `running ${figure(now.in_flight)}` : "running");
		const list = this.kind === "running" ? now.running : now.recent?.[this.kind];
		if (ASKED_FOR.includes(this.kind)) this.ask();
		else this.list(list ?? []);
	}

	async ask() {
		if (this.asked && performance.now() - this.asked < 5000) return;
		const kind = this.kind;
		this.asked = performance.now();
		try {
			const found = await readRequests(kind, LIMIT);
			if (this.kind === kind) this.list(found);
		} catch (error) {
			if (this.kind === kind) this.list([], `This list cannot be read: ${error.message}.`);
		}
	}

	list(requests, none = NONE[this.kind]) {
		this.table.show(requests);
		put("request-none", requests.length ? "" : none);
	}
}
