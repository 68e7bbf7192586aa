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

/** Return how many neighbouring slots the service has added up, so that the answer is small: 1, 2, 4, 8 or 16. */
export function stepOf(counts) {
	const slots = [...counts];
	const bits = slots.reduce((all, [slot]) => all | slot, 16);
	return slots.length < 8 ? 1 : bits & -bits;
}

/** Return, for ascending shares of 1, the middle of the slot that holds it, in ms; empty if nothing was counted. */
export function quantilesMs(counts, ...shares) {
	const slots = [...counts].sort(([one], [other]) => one - other);
	const total = slots.reduce((sum, [, count]) => sum + count, 0);
	if (!total) return [];
	let at = 0;
	let seen = slots[0][1];
	const step = stepOf(slots);
	return shares.map((share) => {
		while (seen < share * total && at < slots.length - 1) seen += slots[++at][1];
		return (floorMs(slots[at][0]) + limitMs(slots[at][0] + step - 1)) / 2;
	});
}
