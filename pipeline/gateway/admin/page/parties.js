/** The chart of whose time it is: stacked areas of seconds per second, by uPlot. A party can be hidden. */

import { PARTIES } from "./history.js";
import { byId, make, setText, swatch } from "./dom.js";
import { clock, figure } from "./units.js";
import { colour, onTheme } from "./theme.js";

export class PartiesChart {
	constructor() {
		this.box = byId("parties");
		this.shown = new Set(PARTIES);
		this.values = {};
		this.samples = [];
		byId("parties-legend").replaceChildren(...PARTIES.map((party) => this.legendOf(party)));
		this.chart = new uPlot(this.options(), [[], [], [], []], this.box);
		new ResizeObserver(() => this.chart.setSize(this.size())).observe(this.box);
		onTheme(() => this.chart.redraw());
	}

	size() {
		return { width: Math.max(200, this.box.clientWidth), height: this.box.clientHeight };
	}

	legendOf(party) {
		this.values[party] = make("b", { "data-party": party }, "–");
		const toggle = () => {
			if (!this.shown.delete(party)) this.shown.add(party);
			button.setAttribute("aria-pressed", this.shown.has(party));
			this.draw();
		};
		const button = make("button", { "aria-pressed": true, onclick: toggle }, swatch(party), `${party} `, this.values[party]);
		return button;
	}

	options() {
		const axis = { stroke: () => colour("quiet"), font: "11px system-ui, sans-serif", ticks: { show: false } };
		const grid = { stroke: () => colour("soft"), width: 1 };
		const area = (party) => ({
			fill: () => colour(party), stroke: () => colour(party), width: 1, points: { show: false },
			paths: uPlot.paths.stepped({ align: -1 }),
		});
		return {
			...this.size(), padding: [8, 1, 0, 0], legend: { show: false }, cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
			scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.08)] } },
			axes: [
				{ ...axis, grid: { show: false }, size: 24, space: 90, values: (_, at) => at.map(clock) },
				{ ...axis, grid, size: 52, values: (_, at) => at.map(figure) },
			],
			// Each is the sum of its party and of those below it, which are painted over it.
			series: [{}, area("upstream"), area("client"), area("ours")],
			hooks: { setCursor: [(chart) => this.read(chart.cursor.idx)] },
		};
	}

	/** Show these samples up to `untilS`. */
	show(samples, untilS, spanS) {
		this.samples = samples.filter((sample) => sample.atS > untilS - spanS);
		this.range = { min: untilS - spanS, max: untilS };
		this.draw();
	}

	draw() {
		if (!this.range) return;
		const columns = [[], [], [], []];
		for (const { atS, party, isGap } of this.samples) {
			let sum = 0;
			columns[0].push(atS);
			PARTIES.forEach((name, at) => {
				sum += this.shown.has(name) ? party[name] : 0;
				columns[3 - at].push(isGap ? null : sum);
			});
		}
		this.chart.batch(() => {
			this.chart.setData(columns, false);
			this.chart.setScale("x", this.range);
		});
		this.read(this.chart.cursor.idx);
	}

	/** Write the values of one sample, or of the last, into the legend. */
	read(index) {
		const sample = this.samples[index ?? this.samples.length - 1];
		for (const party of PARTIES) setText(this.values[party], sample ? figure(sample.party[party]) : "–");
		const [ours, client, upstream] = PARTIES.map((party) => figure(sample?.party[party]));
		const when = sample ? `at ${clock(sample.atS)}` : "no data yet";
		this.box.setAttribute("aria-label", `Seconds per second ${when}: client ${client}, ours ${ours}, upstream ${upstream}`);
	}
}
