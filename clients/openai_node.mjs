// Asks headrace through openai-node and prints what the client ended up with, as one JSON object.
// node openai_node.mjs BASE_URL KEY MODEL
import OpenAI from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const request = {
  model,
  messages: [{ role: "user", content: "hi" }],
  stream_options: { include_usage: true },
};

function told(error) {
  return { message: error.message, code: error.code ?? null, status: error.status ?? null };
}

async function byIteration() {
  const seen = { content: "", refusal: "", reasoning: "", calls: [], finish: null, usage: null, error: null };
  try {
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
      if (chunk.usage) seen.usage = chunk.usage.total_tokens;
      for (const choice of chunk.choices) {
        seen.content += choice.delta.content ?? "";
        seen.refusal += choice.delta.refusal ?? "";
        seen.reasoning += choice.delta.reasoning_content ?? "";
        for (const call of choice.delta.tool_calls ?? []) {
          if (call.id) seen.calls[call.index] = { id: call.id, name: call.function.name, arguments: "" };
          seen.calls[call.index].arguments += call.function.arguments;
        }
        seen.finish = choice.finish_reason ?? seen.finish;
      }
    }
  } catch (error) {
    seen.error = told(error);
  }
  return seen;
}

async function byHelper() {
  try {
    const completion = await client.chat.completions.stream(request).finalChatCompletion();
    return seenIn(completion);
  } catch (error) {
    return { error: told(error) };
  }
}

async function whole() {
  try {
    const { stream_options, ...rest } = request;
    return seenIn(await client.chat.completions.create(rest));
  } catch (error) {
    return { error: told(error) };
  }
}

function seenIn(completion) {
  const { message, finish_reason } = completion.choices[0];
  return {
    content: message.content ?? "",
    refusal: message.refusal ?? "",
    calls: (message.tool_calls ?? []).map((call) => ({
      id: call.id,
      name: call.function.name,
      arguments: call.function.arguments,
    })),
    finish: finish_reason,
    usage: completion.usage?.total_tokens ?? null,
    error: null,
  };
}

console.log(JSON.stringify({ iteration: await byIteration(), helper: await byHelper(), whole: await whole() }));
