/** One request: its phases, whose they are, and a sentence that says why it took so long. No elements here. */

import { duration } from "./units.js";

/** What happens until a point, and whose time that usually is. */
const POINTS = {
	head_read: ["ours", "the head is read"],
	admitted: ["ours", "queued for its turn"],
	body_read: ["client", "the client sends the body"],
	routed: ["ours", "authenticated, parsed, routed"],
	upstream_slot: ["ours", "waiting for the pool"],
	upstream_resolved: ["upstream", "the upstream's address"],
	upstream_connected: ["upstream", "connecting"],
	upstream_secured: ["upstream", "TLS"],
	upstream_sent: ["upstream", "sending the request"],
	upstream_head: ["upstream", "waiting for the answer"],
	first_event: ["upstream", "waiting for the first event"],
	first_token: ["upstream", "waiting for the first token"],
	first_output_token: ["upstream", "the model reasons"],
	first_byte_out: ["ours", "first byte to the client"],
	first_token_out: ["ours", "first token to the client"],
	upstream_end: ["upstream", "the answer goes on"],
	last_byte_out: ["client", "last byte to the client"],
	left: ["upstream", "until the client left"],
	upstream_closed: ["ours", "closing the upstream"],
	ended: ["ours", "the last task ends"],
};

/**
 * Return the phases of a record, {name, about, fromMs, toMs, parts: {party: ms}}; they sum to `total_ms`.
 *
 * A record has the parties' times as a whole only. Each phase is first that of its usual party; then the longest ones
 * give away what their party cannot have had, so that the parties' sums are right.
 */
export function phasesOf(record) {
	const points = Object.entries(record.points_ms ?? {}).sort(([, one], [, other]) => one - other);
	let fromMs = 0;
	const phases = points.map(([name, toMs]) => {
		const [party, about] = POINTS[name] ?? ["ours", ""];
		const phase = { name, about, party, fromMs, toMs, parts: { [party]: toMs - fromMs } };
		fromMs = toMs;
		return phase;
	});
	const over = {};
	for (const [party, ms] of Object.entries(record.party_ms ?? {})) {
		over[party] = phases.reduce((sum, phase) => sum + (phase.parts[party] ?? 0), -ms);
	}
	const size = (phase) => phase.toMs - phase.fromMs;
	for (const phase of [...phases].sort((one, other) => size(other) - size(one))) {
		for (const taker of Object.keys(over)) {
			const given = Math.min(over[phase.party], -over[taker], phase.parts[phase.party]);
			if (!(given > 0)) continue;
			phase.parts[phase.party] -= given;
			phase.parts[taker] = (phase.parts[taker] ?? 0) + given;
			over[phase.party] -= given;
			over[taker] += given;
		}
	}
	return phases;
}

/** Return one sentence: whose time it was, and in which phase, stage or wait. */
export function whyOf(record, stalls = []) {
	const total = record.total_ms;
	const parties = Object.entries(record.party_ms ?? {}).sort(([, one], [, other]) => other - one);
	if (!parties.length || !total) return "The record says nothing about its time.";
	const [party, ms] = parties[0];
	const share = `${duration(ms)} of ${duration(total)}`;
	if (party === "ours") return `${share} was ours: ${whyOurs(record, stalls)}.`;
	const [phase] = phasesOf(record).sort((one, other) => (other.parts[party] ?? 0) - (one.parts[party] ?? 0));
	const whose = party === "client" ? "the client to send or to read" : "the upstream";
	const where = phase ? ` Longest phase: ${phase.name}, ${phase.about} (${duration(phase.toMs - phase.fromMs)}).` : "";
	return `${share} we waited for ${whose}.${where} Ours: ${duration(record.party_ms.ours)}.`;
}

function whyOurs(record, stalls) {
	const { before_ms: beforeMs = 0, stages = {}, lanes = {}, links = {} } = record;
	const queued = phasesOf(record).find((phase) => phase.name === "admitted");
	const causes = queued ? [[queued.toMs - queued.fromMs, "it was queued for its turn (max_requests_in_flight)"]] : [];
	for (const [name, stage] of Object.entries(stages)) {
		causes.push([stage.busy_ms + stage.flush_ms, `the stage ${name} worked`]);
		if (name !== "call_upstream") causes.push([stage.outside_ms, `the stage ${name} waited for something outside`]);
	}
	const readyMs = Object.values(lanes).reduce((sum, lane) => sum + lane.ready_ms, 0);
	const endMs = Date.parse(record.ts);
	const during = stalls.filter((one) => Date.parse(one.ts) > endMs - record.total_ms && Date.parse(one.ts) - one.ms < endMs);
	const [stall] = during.sort((one, other) => other.ms - one.ms);
	const culprit = stall ? `; ${stall.stage ?? "no single stage"} held it for ${duration(stall.ms)}` : "";
	causes.push([readyMs, `the loop was busy with other requests${culprit}`]);
	causes.push([beforeMs, `its head waited to be read${culprit}`]);
	for (const [name, link] of Object.entries(links)) {
		causes.push([Math.min(link.queued_ms, record.party_ms.ours), `batches queued in ${name}`]);
	}
	const [[ms, what]] = causes.sort(([one], [other]) => other - one);
	return `${what} (${duration(ms)})`;
}
