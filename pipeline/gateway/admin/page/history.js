/** The last minutes: differences of figures that count from the start. If they go down, the service was started anew. */

import { summed } from "./slots.js";

const LIMIT_S = 310;
const AVERAGED_S = 10;
const GAP_S = 5;

export const PARTIES = ["ours", "client", "upstream"];
export const sumOf = (figures) => Object.values(figures ?? {}).reduce((sum, value) => sum + value, 0);

/** Return what was counted between two readings of nested figures; absent ones count as 0. */
export function difference(later, earlier) {
	if (typeof later === "number") return Math.max(0, later - (typeof earlier === "number" ? earlier : 0));
	const found = {};
	for (const name of Object.keys(later ?? {})) found[name] = difference(later[name], earlier?.[name]);
	return found;
}

function histogramsBetween(later, earlier) {
	const found = {};
	for (const [name, histogram] of Object.entries(later.histograms ?? {})) {
		found[name] = summed([histogram], [earlier.histograms?.[name] ?? {}]);
	}
	return found;
}

export class History {
	/** `samples`: one for each reading but the first, {atS, forS, party: seconds per second, histograms: {name: ...}}. */
	constructor() {
		this.samples = [];
		this.readings = [];
	}

	get latest() {
		return this.readings.at(-1);
	}

	/** Add a reading of `/latency/now`. */
	add(now) {
		const before = this.latest;
		// Before anybody watches, the time of the requests that run is not published.
		if (before && (before.is_watched === false || hasRestarted(before, now))) this.readings = [];
		else if (before && now.now_s <= before.now_s) return;
		else if (before) this.addSample(before, now);
		// Until the workers say it again, whose time it is has not changed: what has come to it is in the next difference.
		const isOld = this.latest && now.party_at_s <= this.latest.party_at_s;
		this.readings.push(isOld ? { ...now, party_s: this.latest.party_s, party_at_s: this.latest.party_at_s } : now);
		while (this.readings.length > 2 && this.readings[1].now_s <= now.now_s - AVERAGED_S) this.readings.shift();
		while (this.samples[0]?.atS < now.now_s - LIMIT_S) this.samples.shift();
	}

	addSample(before, now) {
		const forS = now.now_s - before.now_s;
		const party = this.partyBetween(before, now);
		const histograms = histogramsBetween(now, before);
		// An average over the pause of a hidden tab would look like a measurement of each second.
		this.samples.push({ atS: now.now_s, forS, party, histograms, isGap: forS > GAP_S });
	}

	/** Return whose time it was, in seconds per second: as before until the workers say it again, once a second. */
	partyBetween(before, now) {
		const forS = (now.party_at_s ?? now.now_s) - (before.party_at_s ?? before.now_s);
		const party = forS > 0 ? difference(now.party_s, before.party_s) : { ...this.samples.at(-1)?.party };
		for (const name of PARTIES) party[name] = (party[name] ?? 0) / (forS > 0 ? forS : 1);
		return party;
	}

	/** Return what was counted in the last seconds, {forS, and the sections of `now`}; null before the second reading. */
	recent() {
		const [first] = this.readings;
		const last = this.latest;
		if (!last || first === last) return null;
		const sections = {};
		for (const name of ["ended", "party_s", "lanes_s", "stages", "links"]) {
			sections[name] = difference(last[name], first[name]);
		}
		return { forS: last.now_s - first.now_s, histograms: histogramsBetween(last, first), ...sections };
	}
}

const hasRestarted = (before, now) => sumOf(now.ended) < sumOf(before.ended) || sumOf(now.party_s) < sumOf(before.party_s) / 2;
