/** Elements and tables. Texts only ever become text nodes: nothing that a client has named can become markup. */

/** Return the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Return a new element; `props` are attributes, `on...` listeners, `style` an object. */
export function make(tag, props = {}, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(props)) {
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else if (name === "style") Object.assign(element.style, value);
		else if (value !== false && value != null) element.setAttribute(name, value);
	}
	element.append(...children.flat().filter((child) => child || child === 0));
	return element;
}

/** Change a text if it differs: an unchanged one costs no layout, and is not read out again. */
export function setText(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

/** Change the text of the element with this id. */
export const put = (id, text) => setText(byId(id), text);

/** Return the pen of an empty canvas of this size in CSS pixels. */
export function penOf(canvas, width, height) {
	const scale = devicePixelRatio || 1;
	Object.assign(canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
	const pen = canvas.getContext("2d");
	pen.scale(scale, scale);
	pen.font = "11px system-ui, sans-serif";
	pen.textBaseline = "middle";
	return pen;
}

/** Return a coloured square; `colour` names a custom property. */
export const swatch = (colour) => make("i", { class: "swatch", style: { background: `var(--${colour})` } });

/** Return a bar, or change one; `parts` are [custom property, share of 1] pairs. */
export function bar({ parts, label }, track = make("div", { class: "bar-track", role: "img" })) {
	while (track.children.length > parts.length) track.lastChild.remove();
	parts.forEach(([colour, share], number) => {
		const part = track.children[number] ?? track.appendChild(make("i"));
		part.style.background = `var(--${colour})`;
		part.style.width = `${(100 * share || 0).toFixed(2)}%`;
	});
	if (track.title !== label) track.ariaLabel = track.title = label;
	return track;
}

/** Return a column of a `Table`. */
export const column = (name, cell, options) => ({ name, cell, ...options });

/** Return a cell with a name, which may be cut. */
export const nameCell = (text, title = text) => ({ text, title, class: "mono" });

/** Fill a box with tabs or radio buttons, [kind, text] pairs; return a function that chooses one. */
export function chooser(box, role, names, onChoose) {
	const buttons = names.map(([kind, text]) =>
		make("button", { role, id: `${role}-${kind}`, "data-kind": kind, onclick: () => choose(kind) }, text));
	const choose = (kind) => {
		for (const button of buttons) {
			const isIt = button.dataset.kind === kind;
			button.setAttribute(role === "tab" ? "aria-selected" : "aria-checked", isIt);
			button.tabIndex = isIt ? 0 : -1;
		}
		onChoose(kind);
	};
	box.replaceChildren(...buttons);
	box.addEventListener("keydown", (event) => {
		const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
		if (!step) return;
		const next = buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length);
		choose(next.dataset.kind);
		next.focus();
	});
	return choose;
}

/**
 * A table whose rows are kept by key, so that focus and selection survive a tick.
 *
 * A column is {name, about, width, left, bar, cell}: `cell(item)` returns a text, {text, class, title}, or, for a bar,
 * {parts, label}.
 */
export class Table {
	constructor(table, columns, keyOf, onOpen) {
		this.table = table;
		this.columns = columns;
		this.keyOf = keyOf;
		this.onOpen = onOpen;
		this.rows = new Map();
		const head = columns.map(({ name, about, left, bar: isBar, width = "" }) =>
			make("th", { scope: "col", title: about, class: (left || isBar) && "left", style: { width } }, name));
		this.body = make("tbody");
		table.replaceChildren(make("thead", {}, make("tr", {}, head)), this.body);
		if (onOpen) this.body.addEventListener("keydown", (event) => this.walk(event));
	}

	/** Show these items in this order. */
	show(items) {
		const focused = document.activeElement;
		const byKey = new Map(items.map((item) => [this.keyOf(item), item]));
		for (const [key, { tr }] of this.rows) {
			if (byKey.has(key)) continue;
			if (tr === focused) (tr.nextSibling ?? tr.previousSibling)?.focus();
			tr.remove();
			this.rows.delete(key);
		}
		let number = 0;
		for (const [key, item] of byKey) {
			if (!this.rows.has(key)) this.rows.set(key, this.newRow());
			const row = this.rows.get(key);
			row.item = item;
			this.columns.forEach((column, at) => fill(row.cells[at], column.cell(item)));
			const there = this.body.children[number++] ?? null;
			if (there !== row.tr) this.body.insertBefore(row.tr, there);
		}
		if (this.body.contains(focused)) focused.focus(); // a row that was moved has lost it
		if (this.onOpen) this.keepOneTabStop();
	}

	newRow() {
		const cells = this.columns.map(({ left, bar: isBar }) => make("td", { class: isBar ? "bar" : left && "left" }));
		const row = { cells, tr: make("tr", {}, cells) };
		if (this.onOpen) {
			row.tr.tabIndex = -1;
			row.tr.addEventListener("click", () => this.onOpen(row.item));
			row.tr.addEventListener("focus", () => this.keepOneTabStop());
		}
		return row;
	}

	/** One row can be reached by Tab, the others by the arrow keys. */
	keepOneTabStop() {
		const rows = [...this.body.children];
		const current = rows.find((tr) => tr === document.activeElement) ?? rows[0];
		for (const tr of rows) tr.tabIndex = tr === current ? 0 : -1;
	}

	walk(event) {
		const rows = [...this.body.children];
		const at = rows.indexOf(document.activeElement);
		const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
		if (to !== undefined) rows[Math.max(0, Math.min(rows.length - 1, to))]?.focus();
		else if (event.key === "Enter" || event.key === " ") rows[at]?.click();
		else return;
		event.preventDefault();
	}
}

function fill(cell, value) {
	if (value?.parts) return void (cell.firstChild ? bar(value, cell.firstChild) : cell.append(bar(value)));
	const { text = value, class: name, title } = value?.text === undefined ? {} : value;
	setText(cell, text ?? "");
	if (name !== undefined) cell.className = name;
	if (title !== undefined) cell.title = title;
}
