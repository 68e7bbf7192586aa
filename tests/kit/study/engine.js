// Runs Perfetto's trace processor, which is compiled for a web worker, in node: requests on stdin, replies on stdout.
// Both are a TraceProcessorRpcStream, as Perfetto's protos/perfetto/trace_processor/trace_processor.proto defines it.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

// Not node's own report, which begins with the line of the source that failed: here that is the whole bundle.
const fail = (error) => {
  console.error(String(error.stack || error).slice(0, 2000));
  process.exit(1);
};
process.on("uncaughtException", fail);
process.on("unhandledRejection", fail);

const folder = process.argv[2];
const source = fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8");
const requests = new Uint8Array(fs.readFileSync(0));
const replies = [];

// What the bundle looks for in a worker. It refuses to start where `process` is, so that this name is hidden from it.
class WorkerGlobalScope {}
class XMLHttpRequest {
  open(method, name) {
    this.name = path.basename(name);
  }
  send() {
    this.response = new Uint8Array(fs.readFileSync(path.join(folder, this.name))).buffer;
  }
}
const worker = { location: { href: "" } };
const quiet = { log: () => {}, warn: () => {}, error: console.error };
const names = ["self", "WorkerGlobalScope", "XMLHttpRequest", "process", "console"];
new Function(...names, source)(worker, WorkerGlobalScope, XMLHttpRequest, undefined, quiet);

const port = { postMessage: (reply) => replies.push(Buffer.from(reply)) };
setImmediate(() => {
  // The engine has been compiled, and the microtask that ends its start has run.
  worker.onmessage({ data: port });
  port.onmessage({ data: requests });
  process.stdout.write(Buffer.concat(replies));
});
