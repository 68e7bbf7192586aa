/** Stages, lanes and links: who works, who waits, and for whom. All figures are of the last ten seconds. */

import { byId, column, make, nameCell, put, swatch, Table } from "./dom.js";
import { sumOf } from "./history.js";
import { duration, figure, percent } from "./units.js";

export const STATES = ["busy", "ready", "blocked", "outside", "starved", "closing"];
const NOTICEABLE = 0.02;
const keyOf = (one) => one.name;
const seconds = (perS) => (perS < 1 ? duration(1000 * perS) : `${figure(perS)} s`);

/** Return the parts and the label of a bar of a lane's states. */
export function stateBar(times, total = sumOf(times)) {
	const known = STATES.filter((state) => times[state] > 0);
	return {
		parts: known.map((state) => [state, times[state] / total]),
		label: known.map((state) => `${state} ${percent(times[state] / total)}`).join(", ") || "idle",
	};
}

export class Flow {
	constructor() {
		byId("states-legend").replaceChildren(...STATES.map((state) => make("span", {}, swatch(state), state)));
		const name = (title, width) => column(title, (one) => nameCell(one.name), { width });
		const rate = (title, field, unit, about) => column(title, (one) => unit(one[field]), { width: "66px", about });
		this.stages = new Table(byId("stages"), [
			name("stage", "26%"),
			column("busy", (one) => one.bar, { bar: true }),
			rate("per s", "busyS", seconds, "of all workers"),
			rate("per event", "eventMs", duration, "busy time"),
			rate("taken/s", "eventsIn", figure, "events"),
			rate("given/s", "eventsOut", figure, "events"),
			rate("outside", "outsideS", seconds, "declared waits, per second"),
		], keyOf);
		this.lanes = new Table(byId("lanes"), [
			name("lane", "28%"),
			column("states", (one) => one.bar, { bar: true }),
			rate("busy/s", "busyS", seconds),
			rate("tasks", "tasks", figure, "how many run, on average"),
		], keyOf);
		this.links = new Table(byId("links"), [
			name("link", "34%"),
			rate("ready", "readyMs", duration, "wait of a batch for the loop"),
			rate("queued", "queuedMs", duration, "wait of a batch for a taker at work on others"),
			rate("full", "full", percent, "share of its time that its giver waited for room"),
			rate("batches/s", "batches", figure),
			rate("depth", "depth", figure, "batches in it now"),
		], keyOf);
	}

	/** Show what was counted lately (`History.recent`); `now` has the gauges. */
	show(recent, now) {
		const perS = (value) => (value ?? 0) / recent.forS;
		const stages = Object.entries(recent.stages).map(([name, one]) => ({
			name, busyS: perS(one.busy_s), outsideS: perS(one.outside_s),
			eventsIn: perS(one.events_in), eventsOut: perS(one.events_out), eventMs: (1000 * one.busy_s) / one.events_in,
		}));
		const most = Math.max(1e-9, ...stages.map((one) => one.busyS));
		for (const one of stages) {
			one.bar = { parts: [["busy", one.busyS / most]], label: `busy ${seconds(one.busyS)} per second` };
		}
		this.stages.show(stages);
		const sum = stages.reduce((all, one) => all + one.busyS, 0);
		const first = stages.find((one) => one.busyS === most);
		put("stages-verdict", first
			? `${first.name} works most: ${percent(most / sum)} of the ${seconds(sum)} of work per second.`
			: "No stage has worked lately.");
		const lanes = Object.entries(recent.lanes_s).map(([name, times]) => ({
			name, bar: stateBar(times), busyS: perS(times.busy), tasks: perS(sumOf(times)),
		}));
		this.lanes.show(lanes);
		const tasks = new Map(lanes.map((one) => [one.name, one.tasks]));
		const links = Object.entries(recent.links).map(([name, one]) => ({
			name, batches: perS(one.batches), depth: now.links[name]?.depth ?? 0,
			readyMs: one.batches ? (1000 * one.ready_s) / one.batches : 0,
			queuedMs: one.batches ? (1000 * one.queued_s) / one.batches : 0,
			full: perS(one.full_s) / Math.max(1, tasks.get(name.split(">")[0]) ?? now.in_flight),
		}));
		this.links.show(links);
		put("links-verdict", bottleneck(links));
	}
}

/** Return a sentence that names the bottleneck, if there is one. */
export function bottleneck(links) {
	if (!links.some((one) => one.batches > 0 || one.full > 0)) return "Nothing has passed a link lately.";
	const most = (field) => links.reduce((best, one) => (one[field] > best[field] ? one : best));
	const [full, late, queued] = ["full", "readyMs", "queuedMs"].map(most);
	const [giver, taker] = full.name.split(">");
	if (full.full > NOTICEABLE) return `${taker} is the bottleneck: ${giver} waits ${percent(full.full)} of its time for room.`;
	if (late.readyMs > 5) return `The loop is busy: batches wait ${duration(late.readyMs)} for it in ${late.name}.`;
	if (queued.queuedMs > 5) return `Batches wait ${duration(queued.queuedMs)} in ${queued.name}: its taker is at work on others.`;
	return "No bottleneck: no giver waits for room, and batches hardly wait.";
}
