/** Light and dark: as the system has it unless the reader chose; and the colours for canvases. */

import { put } from "./dom.js";

const CHOICES = ["system", "light", "dark"];
const KEPT = "headrace-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = [];
let colours = {};

/** Return the colour of a custom property. */
export function colour(name) {
	return (colours[name] ??= getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
}

/** Return whether dark is shown. */
export const isDark = () => document.documentElement.dataset.theme === "dark";

/** Have `listener` called whenever the colours have changed. */
export const onTheme = (listener) => listeners.push(listener);

function kept() {
	const choice = localStorage.getItem(KEPT);
	return CHOICES.includes(choice) ? choice : "system";
}

function apply() {
	const choice = kept();
	const dark = choice === "system" ? system.matches : choice === "dark";
	document.documentElement.dataset.theme = dark ? "dark" : "light";
	put("theme", choice);
	colours = {};
	for (const listener of listeners) listener();
}

/** Go on to the next choice: as the system, light, dark. */
export function nextTheme() {
	localStorage.setItem(KEPT, CHOICES[(CHOICES.indexOf(kept()) + 1) % CHOICES.length]);
	apply();
}

system.addEventListener("change", apply);
apply();
