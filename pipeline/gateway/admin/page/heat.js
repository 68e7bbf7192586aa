/** The heat map: time to the right, duration upwards (log scale), the colour is how many; with the median and p99. */

import { byId, chooser, penOf, put } from "./dom.js";
import { floorMs, limitMs, quantilesMs, slotOf, summed } from "./slots.js";
import { isDark, colour, onTheme } from "./theme.js";
import { clock, duration, figure, percent } from "./units.js";

const KINDS = {
	transit: ["transit", "from the arrival of a batch to the client's socket: what we add to each token, and what a slow client does"],
	gap_client: ["gap to client", "between two writes to the client: the rhythm that it sees"],
	gap_upstream: ["gap from upstream", "between two reads: the rhythm of the model"],
	first_token: ["first token", "from the request's first byte"],
	request: ["request", "from its first byte to its end"],
};
const SLOTS_A_ROW = 4;
const rowOf = (slot) => Math.floor(slot / SLOTS_A_ROW);
const LEAST_ROWS = 24;
const LEFT = 52;
const BELOW = 18;
const LIGHT = [[228, 238, 248], [169, 203, 232], [92, 155, 209], [31, 102, 171], [8, 48, 107]];
const DARK = [[27, 46, 77], [63, 79, 114], [124, 123, 120], [189, 171, 104], [255, 228, 92]];

export class HeatMap {
	constructor() {
		this.canvas = byId("heat");
		this.kind = "transit";
		this.samples = [];
		const on = (name, action) => this.canvas.addEventListener(name, action);
		on("pointermove", (event) => this.point(event.offsetX, event.offsetY));
		on("pointerleave", () => this.point());
		on("blur", () => this.point());
		on("keydown", (event) => this.walk(event));
		new ResizeObserver(() => this.draw()).observe(this.canvas.parentElement);
		onTheme(() => this.draw());
		chooser(byId("heat-choice"), "radio", Object.entries(KINDS).map(([kind, [name]]) => [kind, name]), (kind) => this.choose(kind))("transit");
	}

	choose(kind) {
		this.kind = kind;
		put("heat-about", KINDS[kind][1]);
		this.cursor = null;
		this.draw();
	}

	/** Show the last `spanS` seconds of these samples. */
	show(samples, untilS, spanS) {
		Object.assign(this, { samples, untilS, spanS });
		this.draw();
	}

	/** Sum the samples into columns of one second and rows of a quarter octave. */
	count() {
		this.columns = Array.from({ length: this.spanS }, () => ({ histograms: [], rows: new Map(), total: 0 }));
		const seen = new Set();
		this.most = 1;
		this.shown = [];
		for (const { atS, forS, histograms, isGap } of this.samples) {
			const end = this.spanS - (this.untilS - atS);
			const first = Math.round(end - forS);
			const histogram = histograms[this.kind];
			if (first < 0 || isGap || !histogram) continue;
			this.shown.push(histogram);
			// A reading comes a little early or late: its columns meet those of the one before it.
			for (const column of this.columns.slice(first, Math.max(first + 1, Math.round(end)))) this.add(column, histogram, seen);
		}
		if (!seen.size) seen.add(rowOf(slotOf(1)));
		const [low, high] = [Math.min(...seen), Math.max(...seen)];
		const around = Math.max(2, Math.ceil((LEAST_ROWS - high + low) / 2));
		this.low = Math.max(0, low - around);
		this.rows = high + around + 1 - this.low;
	}

	add(column, histogram, seen) {
		column.histograms.push(histogram);
		const height = Math.max(1, histogram.step / SLOTS_A_ROW);
		for (const [slot, count] of histogram.slots) {
			column.total += count;
			for (let row = rowOf(slot); row < rowOf(slot) + height; row++) {
				const sum = (column.rows.get(row) ?? 0) + count / height;
				column.rows.set(row, sum);
				this.most = Math.max(this.most, sum);
				seen.add(row);
			}
		}
	}

	draw() {
		const box = this.canvas.parentElement;
		this.width = box.clientWidth;
		this.height = box.clientHeight;
		if (!this.spanS || !this.width) return;
		this.count();
		const pen = penOf(this.canvas, this.width, this.height);
		this.drawAxes(pen);
		pen.imageSmoothingEnabled = false;
		pen.drawImage(this.bitmap(), LEFT, 0, this.width - LEFT, this.height - BELOW);
		this.drawQuantile(pen, 0.5, []);
		this.drawQuantile(pen, 0.99, [3, 3]);
		this.describe(pen);
	}

	/** Return a picture with one pixel for each cell. */
	bitmap() {
		const small = (this.small ??= document.createElement("canvas"));
		Object.assign(small, { width: this.spanS, height: this.rows });
		const pen = small.getContext("2d");
		const image = pen.createImageData(this.spanS, this.rows);
		const ramp = isDark() ? DARK : LIGHT;
		const most = Math.log1p(this.most);
		this.columns.forEach((column, x) => {
			for (const [row, count] of column.rows) {
				const at = 4 * ((this.rows - 1 - (row - this.low)) * this.spanS + x);
				image.data.set([...mixed(ramp, Math.log1p(count) / most), 255], at);
			}
		});
		pen.putImageData(image, 0, 0);
		return small;
	}

	xOf(column) {
		return LEFT + (column / this.spanS) * (this.width - LEFT);
	}

	yOf(row) {
		return (this.height - BELOW) * (1 - (row - this.low) / this.rows);
	}

	drawAxes(pen) {
		pen.fillStyle = colour("quiet");
		pen.textAlign = "right";
		pen.textBaseline = "middle";
		for (let ms = 0.001; ms < 1e6; ms *= 10) {
			const y = this.yOf(slotOf(ms) / SLOTS_A_ROW);
			if (y < 5 || y > this.height - BELOW) continue;
			pen.fillText(duration(ms).replace(/\.0+/, ""), LEFT - 6, y);
			pen.fillRect(LEFT, y, this.width, 0.2);
		}
		pen.textAlign = "center";
		pen.textBaseline = "bottom";
		const stepS = this.spanS > 120 ? 60 : 30;
		const fromS = this.untilS - this.spanS;
		for (let atS = Math.ceil(fromS / stepS) * stepS; atS < this.untilS; atS += stepS) {
			const x = this.xOf(atS - fromS);
			if (x > LEFT + 24 && x < this.width - 24) pen.fillText(clock(atS), x, this.height);
		}
	}

	drawQuantile(pen, share, dashes) {
		pen.strokeStyle = colour("ours");
		pen.lineWidth = 1.5;
		pen.setLineDash(dashes);
		pen.beginPath();
		let isDown = false;
		this.columns.forEach((column, x) => {
			const [ms] = quantilesMs(summed(column.histograms), share);
			const y = this.yOf(rowOf(slotOf(ms ?? 0)) + 0.5);
			if (ms) pen[isDown ? "lineTo" : "moveTo"](this.xOf(x), y);
			if (ms) pen.lineTo(this.xOf(x + 1), y);
			isDown = ms > 0;
		});
		pen.stroke();
	}

	point(x, y) {
		const across = (x - LEFT) / (this.width - LEFT);
		const up = 1 - y / (this.height - BELOW);
		const isInside = this.rows && across >= 0 && across < 1 && up > 0;
		this.cursor = isInside ? [Math.floor(across * this.spanS), this.low + Math.floor(this.rows * up)] : null;
		this.draw();
	}

	walk(event) {
		const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
		if (!step || !this.columns) return;
		const [[busiest] = [this.low]] = [...this.columns.at(-1).rows].sort(([, one], [, other]) => other - one);
		const [x, row] = this.cursor ?? [this.spanS, busiest];
		this.cursor = [within(x + step[0], 0, this.spanS - 1), within(row + step[1], this.low, this.low + this.rows - 1)];
		this.draw();
		event.preventDefault();
	}

	/** Mark and write what is under the cursor, or write the quantiles of all that is shown. */
	describe(pen) {
		const name = KINDS[this.kind][0];
		let text = `${name}: nothing measured yet`;
		if (this.cursor) {
			const [x, row] = this.cursor;
			const { rows, total } = this.columns[x];
			const count = rows.get(row) ?? 0;
			const [from, to] = [floorMs(row * SLOTS_A_ROW), limitMs(row * SLOTS_A_ROW + SLOTS_A_ROW - 1)].map(duration);
			const share = total ? `, ${percent(count / total)} of that second` : "";
			text = `${clock(this.untilS - (this.spanS - 1 - x))}: ${from} to ${to}: ${figure(count)}${share}`;
			pen.setLineDash([]);
			pen.strokeStyle = colour("ink");
			pen.strokeRect(this.xOf(x), this.yOf(row + 1), this.xOf(x + 1) - this.xOf(x), this.yOf(row) - this.yOf(row + 1));
		} else {
			const all = summed(this.shown);
			const [half, most, longest] = quantilesMs(all, 0.5, 0.99, 1).map(duration);
			if (half) text = `${name}: — p50 ${half}, ┄ p99 ${most}, max ${longest}`;
		}
		put("heat-value", text);
		this.canvas.setAttribute("aria-label", text);
	}
}

const within = (value, least, most) => Math.max(least, Math.min(most, value));

function mixed(ramp, share) {
	const at = within(share, 0, 1) * (ramp.length - 1);
	const [from, to] = [ramp[Math.floor(at)], ramp[Math.ceil(at)]];
	return from.map((value, channel) => value + (to[channel] - value) * (at % 1));
}
