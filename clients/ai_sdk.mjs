// Asks headrace through the AI SDK and prints what it ended up with, as one JSON object.
// node ai_sdk.mjs BASE_URL KEY MODEL compatible|openai
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { jsonSchema, streamText, tool } from "ai";

const [baseURL, apiKey, model, provider] = process.argv.slice(2);
const warnings = [];
globalThis.AI_SDK_LOG_WARNINGS = (options) => warnings.push(...options.warnings);
for (const level of ["warn", "error"]) console[level] = (...words) => warnings.push(words.map(String).join(" "));

const chat =
  provider === "openai"
    ? createOpenAI({ baseURL, apiKey }).chat(model)
    : createOpenAICompatible({ name: "headrace", baseURL, apiKey, includeUsage: true })(model);

const schema = { type: "object", properties: { path: { type: "string" } }, additionalProperties: true };

// The provider alone: tool inputs as they are, validation errors as they come.
async function byProvider() {
  const seen = { text: "", reasoning: "", calls: [], finish: null, usage: null, errors: [], warnings: [] };
  const { stream } = await chat.doStream({
    prompt: [{ role: "user", content: [{ type: "text", text: "hi" }] }],
    tools: ["Read", "ApplyPatch"].map((name) => ({ type: "function", name, inputSchema: schema })),
  });
  for await (const part of stream) {
    if (part.type === "stream-start") seen.warnings.push(...part.warnings);
    if (part.type === "text-delta") seen.text += part.delta;
    if (part.type === "reasoning-delta") seen.reasoning += part.delta;
    if (part.type === "tool-call") seen.calls.push({ id: part.toolCallId, name: part.toolName, arguments: part.input });
    if (part.type === "error") seen.errors.push(told(part.error));
    if (part.type === "finish") {
      seen.finish = part.finishReason.unified ?? part.finishReason;
      seen.usage = part.usage.outputTokens?.total ?? part.usage.totalTokens ?? null;
    }
  }
  return seen;
}

async function byStreamText() {
  const seen = { text: "", reasoning: "", calls: [], finish: null, errors: [] };
  const tools = { Read: tool({ description: "Reads.", inputSchema: jsonSchema(schema) }) };
  const result = streamText({ model: chat, prompt: "hi", tools, maxRetries: 0, onError: () => {} });
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") seen.text += part.text;
    if (part.type === "reasoning-delta") seen.reasoning += part.text;
    if (part.type === "tool-call") seen.calls.push({ id: part.toolCallId, name: part.toolName, input: part.input });
    if (part.type === "error") seen.errors.push(told(part.error));
    if (part.type === "finish") seen.finish = part.finishReason;
  }
  return seen;
}

function told(error) {
  const data = error?.data?.error ?? error;
  return { name: error?.name ?? null, message: String(data?.message ?? error?.message ?? error) };
}

async function safely(ask) {
  try {
    return await ask();
  } catch (error) {
    return { errors: [told(error)] };
  }
}

const seen = { provider: await safely(byProvider), streamText: await safely(byStreamText) };
console.log(JSON.stringify({ ...seen, warnings }));
