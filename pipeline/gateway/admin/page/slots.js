/**
 * The slots of the log-linear histograms: 16 to the octave, in a unit of 10 ms / 2**14.
 *
 * The same formulas as `pipeline/histogram.py`. Powers, not shifts: the upper slots do not fit into 32 bits.
 */

const UNIT_MS = 78125 / 128 / 1e6;
const shiftOf = (slot) => Math.max(0, (slot >> 4) - 1);

/** Return the exclusive upper limit of a slot, in ms. */
export function limitMs(slot) {
	const shift = shiftOf(slot);
	return (slot - 16 * shift + 1) * 2 ** shift * UNIT_MS;
}

/** Return the inclusive lower limit of a slot, in ms. */
export const floorMs = (slot) => (slot > 0 ? limitMs(slot - 1) : 0);

/** Return the slot of a duration in ms. */
export function slotOf(ms) {
	const units = Math.floor(ms / UNIT_MS + 1e-9);
	const shift = units < 32 ? 0 : Math.floor(Math.log2(units)) - 4;
	return shift * 16 + Math.floor(units / 2 ** shift);
}

/**
 * Return the sum of histograms, {step, slots: [[slot, count], ...]}, less those of `before`, without empty slots.
 *
 * `step` neighbouring slots are added up to the first of them, so that the answer is small: 1, 2, 4, 8 or 16.
 */
export function summed(histograms, before = []) {
	const step = Math.max(1, ...[...histograms, ...before].map((one) => one.step ?? 1));
	const counts = new Map();
	const add = ({ slots = [] }, sign) => {
		for (const [slot, count] of slots) {
			const first = slot - (slot % step);
			counts.set(first, (counts.get(first) ?? 0) + sign * count);
		}
	};
	for (const one of histograms) add(one, 1);
	for (const one of before) add(one, -1);
	return { step, slots: [...counts].filter(([, count]) => count > 0).sort(([one], [other]) => one - other) };
}

/** Return, for ascending shares of 1, the middle of the slots that hold it, in ms; empty if nothing was counted. */
export function quantilesMs({ step = 1, slots = [] } = {}, ...shares) {
	const total = slots.reduce((sum, [, count]) => sum + count, 0);
	if (!total) return [];
	let at = 0;
	let seen = slots[0][1];
	return shares.map((share) => {
		while (seen < share * total && at < slots.length - 1) seen += slots[++at][1];
		return (floorMs(slots[at][0]) + limitMs(slots[at][0] + step - 1)) / 2;
	});
}
