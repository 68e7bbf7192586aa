/** Durations, counts and times as people read them. */

const digits = (value) => (value >= 100 ? 0 : value >= 10 ? 1 : 2);

/** Return a duration in ms as text: 0, 85 µs, 1.24 ms, 6.40 s, 3.1 min. */
export function duration(ms) {
	if (ms == null || !Number.isFinite(ms)) return "–";
	if (ms < 0.0005) return "0";
	if (ms < 0.9995) return `${(ms * 1000).toFixed(ms < 0.00995 ? 1 : 0)} µs`;
	if (ms < 999.5) return `${ms.toFixed(digits(ms))} ms`;
	if (ms < 120_000) return `${(ms / 1000).toFixed(digits(ms / 1000))} s`;
	return ms < 7_200_000 ? `${(ms / 60_000).toFixed(1)} min` : `${(ms / 3_600_000).toFixed(1)} h`;
}

/** Return a figure as text: 0, 0.25, 12.3, 456, 12.3 k, 4.56 M. */
export function figure(value) {
	if (value == null || !Number.isFinite(value)) return "–";
	if (value < 0.005) return "0";
	if (value >= 999_500) return `${(value / 1e6).toFixed(digits(value / 1e6))} M`;
	if (value >= 9_999.5) return `${(value / 1e3).toFixed(digits(value / 1e3))} k`;
	return Number.isInteger(value) ? String(value) : value.toFixed(digits(value));
}

/** Return a share of 1 in percent. */
export function percent(share) {
	if (!Number.isFinite(share)) return "–";
	return `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;
}

/** Return the time of day of a time in seconds since the epoch. */
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

/** Return the time of day of a time stamp of the log. */
export const clockOf = (ts) => clock(Date.parse(ts) / 1000);

/** Return the end of an id, which is where ids of one worker differ. */
export const shortId = (id) => (id.length > 13 ? `…${id.slice(-12)}` : id);
