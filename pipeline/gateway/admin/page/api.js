/** Requests to the service, with the admin key, which is kept in this tab only. */

const BASE = new URL("../", import.meta.url);
const KEY = "headrace-key";
const PATIENCE_MS = 10_000;
const REFUSED = "The service refuses this key: it needs the master key of its configuration.";

/** The service refused the key. */
export class WrongKey extends Error {}

/** Return the key, if there is one; one in the fragment (`#key=...`) is taken out of the address bar. */
export function takeKey() {
	const given = new URLSearchParams(location.hash.slice(1)).get("key");
	if (given) {
		sessionStorage.setItem(KEY, given);
		history.replaceState(null, "", location.pathname + location.search);
	}
	return sessionStorage.getItem(KEY);
}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** Request a path below `/latency/`. Throws `WrongKey`, or an error whose message can be shown. */
async function get(path) {
	let response;
	const key = sessionStorage.getItem(KEY);
	if (!/^[ -~]+$/.test(key)) throw new WrongKey(REFUSED); // no header can have it
	try {
		response = await fetch(new URL(path, BASE), {
			headers: { authorization: `Bearer ${key}` }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS),
		});
	} catch (error) {
		throw new Error(error.name === "TimeoutError" ? "no answer within 10 s" : "the connection failed");
	}
	if ([401, 403].includes(response.status)) throw new WrongKey(REFUSED);
	if (!response.ok) throw new Error(await sentenceOf(response));
	return response;
}

async function sentenceOf(response) {
	const text = (await response.text()).slice(0, 2000);
	try {
		return JSON.parse(text).error.message;
	} catch {
		const plain = response.headers.get("content-type")?.startsWith("text/plain");
		return plain && text ? text.trim() : `status ${response.status}`;
	}
}

export const readNow = async () => (await get("now")).json();
export const readRequests = async (kind, limit) => (await get(`requests?kind=${kind}&limit=${limit}`)).json();
export const readRequest = async (id) => (await get(`requests/${encodeURIComponent(id)}`)).json();

/** Save the Perfetto file of a request. */
export async function saveTrace(id) {
	const response = await get(`requests/${encodeURIComponent(id)}/trace`);
	const url = URL.createObjectURL(await response.blob());
	Object.assign(document.createElement("a"), { href: url, download: `${id}.pftrace` }).click();
	setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
