/** The waterfall of one request: its points and phases, lanes, stages, links, and its spans if it was traced. */

import { readRequest, saveTrace } from "./api.js";
import { bar, byId, column, make, nameCell, setText, swatch, Table } from "./dom.js";
import { stateBar, STATES } from "./flow.js";
import { PARTIES } from "./history.js";
import { phasesOf, whyOf } from "./phases.js";
import { partyBar, routeOf } from "./requests.js";
import { spansView } from "./spans.js";
import { clockOf, duration, figure } from "./units.js";

const AGAIN_MS = 1000;
const dialog = byId("waterfall");
let shown = null;

dialog.addEventListener("close", () => {
	shown = null;
	dialog.replaceChildren();
});
dialog.addEventListener("keydown", (event) => event.key === "z" && dialog.querySelector("#zoom")?.click());

/** Open the waterfall of a request; one that runs is shown as soon as it has ended. */
export async function openWaterfall(request, stalls) {
	shown = request.request_id;
	const notice = show(request, []);
	if (!dialog.open) dialog.showModal();
	while (shown === request.request_id) {
		try {
			const record = await readRequest(request.request_id);
			if (shown === request.request_id) show(record, bodyOf(record, stalls()));
			return;
		} catch (error) {
			if (!request.waits_for) return setText(notice, `It cannot be shown: ${error.message}.`);
			setText(notice, `It is running: it waits for ${request.waits_for}, and its last point was ${request.point}. ` +
				"Its waterfall follows when it has ended.");
		}
		await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
	}
}

/** Show a request, and return the element for messages about it. */
function show(one, body) {
	const { request_id: id } = one;
	const notice = make("p", { role: "status" });
	const act = (action, done) => async () => {
		try {
			await action();
			setText(notice, done);
		} catch (error) {
			setText(notice, `That failed: ${error.message}.`);
		}
	};
	const button = (text, onclick, more) => make("button", { onclick, ...more }, text);
	const close = button("esc", () => dialog.close(), { "aria-label": "Close", autofocus: true });
	const said = (word, value, shown = value) => value != null && `${word} ${shown}`;
	const facts = [
		said("ended", one.ts, clockOf(one.ts)), said("worker", one.worker), said("key", one.key), routeOf(one),
		said("status", one.status), said("error", one.error), said("first token", one.first_token_ms, duration(one.first_token_ms)),
		said("events", one.events), said("tokens", one.completion_tokens),
	].filter(Boolean);
	dialog.replaceChildren(
		make("div", { class: "head" },
			make("h2", { id: "waterfall-title", class: "mono" }, id),
			make("span", { class: one.end === "OK" ? "end" : "end bad" }, one.end ?? "running"),
			make("b", { class: "grow" }, duration(one.total_ms)),
			button("copy id", act(() => navigator.clipboard.writeText(id), "Copied.")),
			button("Perfetto trace", act(() => saveTrace(id), "Saved: open it at ui.perfetto.dev."), { id: "save-trace" }),
			close),
		make("p", { class: "quiet facts" }, facts.join(" · ")), notice, ...body.filter(Boolean));
	close.focus(); // the button that had it is gone
	return notice;
}

function bodyOf(record, stalls) {
	const sums = PARTIES.map((party) =>
		make("span", { "data-party": party }, swatch(party), `${party} `, make("b", {}, duration(record.party_ms?.[party]))));
	const transit = record.transit_ms;
	return [
		make("p", { class: "why" }, whyOf(record, stalls)),
		make("div", { class: "thick" }, bar(partyBar(record.party_ms))),
		make("div", { class: "sums" }, sums,
			transit && make("span", {}, `transit p50 ${duration(transit.p50)}, p99 ${duration(transit.p99)}, max ${duration(transit.max)}`)),
		phaseRows(record),
		record.trace && make("section", { "aria-label": "Each batch" }, spansView(record.trace, record.total_ms)),
		make("div", { class: "halves" }, make("div", {}, lanes(record), links(record)), make("div", {}, stages(record), attempts(record))),
	];
}

function phaseRows(record) {
	const phases = phasesOf(record);
	const rows = make("div", {});
	const draw = (untilMs) => rows.replaceChildren(...phases.map(({ name, about, fromMs, toMs, parts }) => {
		const ms = toMs - fromMs;
		const place = bar(partyBar(parts));
		Object.assign(place.style, { left: `${(100 * fromMs) / untilMs}%`, width: `${(100 * ms) / untilMs}%` });
		return make("div", { class: "phase", "data-ms": ms, title: `until ${duration(toMs)}: ${place.title}` },
			make("span", { class: "mono" }, name), make("span", { class: "quiet about" }, about),
			make("div", {}, place), make("span", {}, duration(ms)));
	}));
	const firstMs = record.first_token_ms;
	const zoom = firstMs > 0 && make("button", { id: "zoom", "aria-pressed": "false", onclick: () => {
		const isNear = zoom.getAttribute("aria-pressed") !== "true";
		zoom.setAttribute("aria-pressed", isNear);
		draw(isNear ? firstMs : record.total_ms);
	} }, "until the first token (z)");
	draw(record.total_ms);
	return make("section", { "aria-label": "Phases" },
		make("div", { class: "head" }, make("h3", {}, "Phases, each until the point it is named after"), zoom), rows);
}

function tableOf(title, columns, figures, width = "34%") {
	const items = Object.entries(figures ?? {}).map(([name, one]) => ({ name, ...one }));
	if (!items.length) return null;
	const table = make("table", { "aria-label": title });
	const name = column("", (one) => nameCell(one.name, one.stages?.join(", ")), { width });
	new Table(table, [name, ...columns], (one) => one.name).show(items);
	return make("section", {}, make("h3", {}, title), table);
}

const ms = (name, field = `${name}_ms`) => column(name, (one) => duration(one[field]), { width: "74px" });

function lanes(record) {
	const times = (one) => Object.fromEntries(STATES.map((state) => [state, one[`${state}_ms`]]));
	const states = column("states", (one) => stateBar(times(one)), { bar: true });
	return tableOf("Lanes", [states, ms("busy"), ms("life")], record.lanes);
}

function stages(record) {
	const work = (one) => one.busy_ms + one.flush_ms;
	const most = Math.max(1e-9, ...Object.values(record.stages ?? {}).map(work));
	const busy = (one) => ({ parts: [["busy", work(one) / most]], label: `busy ${duration(one.busy_ms)}, flush ${duration(one.flush_ms)}` });
	const events = column("events", (one) => `${figure(one.events_in)} → ${figure(one.events_out)}`, { width: "92px" });
	return tableOf("Stages", [column("busy, flush", busy, { bar: true }), ms("busy"), ms("outside"), events], record.stages);
}

function links(record) {
	const batches = column("batches", (one) => figure(one.batches));
	return tableOf("Links, over all batches", [ms("ready"), ms("queued"), ms("full"), batches], record.links, "42%");
}

function attempts(record) {
	const attempts = (record.attempts ?? []).map((one, number) => [`${number + 1}. ${one.deployment}`, one]);
	return tableOf("Attempts", [column("end", (one) => one.end), ms("began"), ms("took", "ms")], Object.fromEntries(attempts));
}
