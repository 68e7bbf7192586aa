/** The spans of a request that was traced per batch: a track for each lane, stage and link, on a canvas with a zoom. */

import { make, penOf, setText } from "./dom.js";
import { colour, onTheme } from "./theme.js";
import { duration } from "./units.js";

const STATES = ["", "starved", "ready", "busy", "outside", "blocked", "closing"];
const LINK_STATES = { 10: "ready", 11: "queued" };
const COLOURS = { queued: "blocked", work: "busy" };
const TRACK = 17;
const LEFT = 150;
const BELOW = 18;

/** Return the tracks of a trace, {name, spans: [{state, fromUs, forUs, batch}]}, lanes before stages before links. */
export function tracksOf(trace) {
	const tracks = new Map();
	const add = (name, state, [, , fromUs, forUs, batch]) => {
		if (!tracks.has(name)) tracks.set(name, { name, spans: [] });
		tracks.get(name).spans.push({ state, fromUs, forUs, batch });
	};
	const placeOf = ([kind, index]) => (kind > 9 ? 2000 : kind ? 0 : 1000) + index;
	for (const span of [...trace.spans].sort((one, other) => placeOf(one) - placeOf(other))) {
		const [kind, index] = span;
		if (kind === 0) add(trace.stages[index], "work", span);
		else if (kind in LINK_STATES) add(trace.links[index], LINK_STATES[kind], span);
		else if (kind < STATES.length) add(`lane ${trace.lanes[index]}`, STATES[kind], span);
	}
	return [...tracks.values()];
}

/** Return where a time is, in a canvas that shows those from `from` until `until`. */
export const xOf = (us, from, until, width) => LEFT + ((us - from) / (until - from)) * (width - LEFT);

/** Return where each batch begins and ends, [number, fromUs, untilUs], in their order. */
function batchesOf(trace) {
	const batches = new Map();
	for (const [, , fromUs, forUs, batch] of trace.spans) {
		const [, first, last] = batches.get(batch) ?? [batch, Infinity, 0];
		batches.set(batch, [batch, Math.min(first, fromUs), Math.max(last, fromUs + forUs)]);
	}
	batches.delete(0);
	return [...batches.values()].sort(([one], [other]) => one - other);
}

/** Return elements that show a trace. */
export function spansView(trace, totalMs) {
	const tracks = tracksOf(trace);
	const height = tracks.length * TRACK + BELOW;
	const canvas = make("canvas", { tabindex: "0", role: "img" });
	const box = make("div", { style: { height: `${height}px` } }, canvas);
	const value = make("p", { class: "quiet readout", "aria-live": "polite" });
	const lost = trace.lost ? ` ${trace.lost} spans were not kept: the trace was full.` : "";
	const hint = `Wheel or + and − zoom, ← and → move, n and p show the next and the previous batch.${lost}`;
	const all = Math.max(totalMs * 1000, ...tracks.flatMap(({ spans }) => spans.map((span) => span.fromUs + span.forUs)));
	const batches = batchesOf(trace);
	let [from, until] = [0, all];
	let batch = 0;
	canvas.setAttribute("aria-label", `Trace of ${trace.spans.length} spans in ${tracks.length} tracks. ${hint}`);
	setText(value, hint);

	const move = (newFrom, newUntil) => {
		const size = Math.max(10, Math.min(all, newUntil - newFrom));
		from = Math.max(0, Math.min(all - size, newFrom));
		until = from + size;
		draw();
	};
	const show = (number) => {
		batch = Math.max(0, Math.min(batches.length, number));
		if (!batch) return setText(value, hint), move(0, all);
		const [name, fromUs, untilUs] = batches[batch - 1];
		const margin = (untilUs - fromUs) / 20;
		setText(value, `batch ${name}: ${duration((untilUs - fromUs) / 1000)} at ${duration(fromUs / 1000)}`);
		move(fromUs - margin, untilUs + margin);
	};
	const zoom = (factor, at = 0.5) => {
		const size = (until - from) * factor;
		const start = from + (until - from - size) * at;
		move(start, start + size);
	};
	const draw = () => {
		const width = box.clientWidth;
		if (!width) return;
		const pen = penOf(canvas, width, height);
		tracks.forEach((track, number) => {
			const top = number * TRACK;
			pen.fillStyle = colour("soft");
			pen.fillRect(LEFT, top + 2, width - LEFT, TRACK - 4);
			pen.fillStyle = colour("ink");
			pen.fillText(track.name, 0, top + TRACK / 2, LEFT - 8);
			for (const { state, fromUs, forUs } of track.spans) {
				if (fromUs + forUs < from || fromUs > until) continue;
				const x = Math.max(LEFT, xOf(fromUs, from, until, width));
				const end = Math.min(width, xOf(fromUs + forUs, from, until, width));
				pen.fillStyle = colour(COLOURS[state] ?? state);
				pen.fillRect(x, top + 2, Math.max(1, end - x), TRACK - 4);
			}
		});
		pen.fillStyle = colour("quiet");
		for (const part of [0, 1, 2, 3, 4]) {
			pen.textAlign = part === 4 ? "right" : part ? "center" : "left";
			const later = ((until - from) * part) / 4000;
			const text = part && from ? `+ ${duration(later)}` : duration(from / 1000 + later);
			pen.fillText(text, LEFT + ((width - LEFT) * part) / 4, height - 8);
		}
		pen.textAlign = "left";
	};

	canvas.addEventListener("wheel", (event) => {
		const at = Math.max(0, (event.offsetX - LEFT) / (box.clientWidth - LEFT));
		zoom(event.deltaY > 0 ? 1.25 : 0.8, at);
		event.preventDefault();
	}, { passive: false });
	canvas.addEventListener("keydown", (event) => {
		const step = (until - from) / 5;
		const by = { ArrowLeft: -step, ArrowRight: step }[event.key];
		const factor = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
		const onward = { n: 1, p: -1 }[event.key];
		if (onward) show(batch + onward);
		else if (by) move(from + by, until + by);
		else if (factor) zoom(factor);
		else return;
		event.preventDefault();
	});
	canvas.addEventListener("pointermove", (event) => {
		const perPixel = (until - from) / (box.clientWidth - LEFT);
		const near = Math.abs(2 * perPixel);
		const at = from + (event.offsetX - LEFT) * perPixel;
		const track = tracks[Math.floor(event.offsetY / TRACK)];
		const span = track?.spans.findLast(({ fromUs, forUs }) => at >= fromUs - near && at <= fromUs + forUs + near);
		if (!span) return setText(value, hint);
		const batch = span.batch ? `, batch ${span.batch}` : "";
		setText(value, `${track.name}: ${span.state} ${duration(span.forUs / 1000)} at ${duration(span.fromUs / 1000)}${batch}`);
	});
	new ResizeObserver(draw).observe(box);
	onTheme(draw);
	const button = (text, onclick) => make("button", { onclick }, text);
	return [
		make("div", { class: "head" }, make("h3", {}, "Each batch"),
			button("all", () => show(0)), button("previous", () => show(batch - 1)), button("next batch", () => show(batch + 1))),
		box, value,
	];
}
