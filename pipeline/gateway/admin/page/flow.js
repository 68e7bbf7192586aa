/** Stages, lanes and links: who works, who waits, and for whom. All figures are of the last ten seconds. */

import { byId, column, make, nameCell, setText, swatch, Table } from "./dom.js";
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
		const states = { bar: true, about: "shares of all its time" };
		const rate = (title, cell, about) => column(title, cell, { width: "66px", about });
		this.stages = new Table(byId("stages"), [
			name("stage", "26%"),
			column("busy", (one) => one.bar, { bar: true, about: "time on the CPU, relative to the busiest" }),
			rate("per s", (one) => seconds(one.busyS), "busy time per second, all workers"),
			rate("per event", (one) => duration((1000 * one.busyS) / one.eventsIn), "busy time for each event taken"),
			rate("taken/s", (one) => figure(one.eventsIn), "events taken per second"),
			rate("given/s", (one) => figure(one.eventsOut), "events given per second"),
			rate("outside", (one) => seconds(one.outsideS), "declared waits per second, all requests"),
		], keyOf);
		this.lanes = new Table(byId("lanes"), [
			name("lane", "28%"),
			column("states", (one) => one.bar, states),
			rate("busy/s", (one) => seconds(one.busyS)),
			rate("tasks", (one) => figure(one.tasks), "how many run, on average"),
		], keyOf);
		this.links = new Table(byId("links"), [
			name("link", "34%"),
			rate("ready", (one) => duration(one.readyMs), "wait of a batch for the loop"),
			rate("queued", (one) => duration(one.queuedMs), "wait of a batch for a taker at work on others"),
			rate("full", (one) => percent(one.full), "share of its time that a giver waited for room"),
			rate("batches/s", (one) => figure(one.batches)),
			rate("depth", (one) => figure(one.depth), "batches in it now"),
		], keyOf);
	}

	/** Show what was counted lately (`History.recent`); `now` has the gauges. */
	show(recent, now) {
		const perS = (value) => (value ?? 0) / recent.forS;
		const stages = Object.entries(recent.stages).map(([name, one]) => ({
			name, busyS: perS(one.busy_s), outsideS: perS(one.outside_s),
			eventsIn: perS(one.events_in), eventsOut: perS(one.events_out),
		}));
		const most = Math.max(1e-9, ...stages.map((one) => one.busyS));
		for (const one of stages) {
			one.bar = { parts: [["busy", one.busyS / most]], label: `busy ${seconds(one.busyS)} per second` };
		}
		this.stages.show(stages);
		this.sayStages(stages);
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
		setText(byId("links-verdict"), bottleneck(links));
	}

	sayStages(stages) {
		const sum = stages.reduce((all, one) => all + one.busyS, 0);
		const first = stages.reduce((best, one) => (one.busyS > (best?.busyS ?? 0) ? one : best), null);
		const text = first
			? `${first.name} works most: ${percent(first.busyS / sum)} of the ${seconds(sum)} of work per second.`
			: "No stage has worked in the last seconds.";
		setText(byId("stages-verdict"), text);
	}
}

/** Return a sentence that names the bottleneck, if there is one. */
export function bottleneck(links) {
	const most = (figureOf) => links.reduce((best, one) => (figureOf(one) > figureOf(best) ? one : best), links[0]);
	if (!links.some((one) => one.batches > 0 || one.full > 0)) return "Nothing has passed a link in the last seconds.";
	const full = most((one) => one.full);
	const [giver, taker] = full.name.split(">");
	if (full.full > NOTICEABLE) {
		return `${taker} is the bottleneck: ${giver} waits ${percent(full.full)} of its time for room.`;
	}
	const late = most((one) => one.readyMs);
	if (late.readyMs > 5) return `The loop is busy: batches wait ${duration(late.readyMs)} for it in ${late.name}.`;
	const queued = most((one) => one.queuedMs);
	if (queued.queuedMs > 5) return `Batches wait ${duration(queued.queuedMs)} in ${queued.name}: its taker is at work on others.`;
	return "No bottleneck: no giver waits for room, and batches hardly wait.";
}
