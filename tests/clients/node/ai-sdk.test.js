// The Vercel AI SDK with its provider for compatible services.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, Output, streamObject, streamText, tool } from "ai";
import { question, Weather } from "./weather.js";
import { all, key, model, refusals, url } from "./weir.js";

const weir = createOpenAICompatible({
  name: "weir", baseURL: url, apiKey: key, includeUsage: true, supportsStructuredOutputs: true,
});
const request = { model: weir(model), prompt: "Say hello.", maxOutputTokens: 8, temperature: 0, maxRetries: 0 };

test("a stream adds up to the regular answer", async () => {
  const whole = await generateText(request);
  assert.ok(whole.text);
  assert.ok(["stop", "length"].includes(whole.finishReason));
  assert.ok(whole.usage.inputTokens > 0 && whole.usage.outputTokens <= 8);
  assert.ok(whole.response.headers["x-request-id"]);

  const streamed = streamText(request);
  assert.equal((await all(streamed.textStream)).join(""), whole.text);
  assert.equal(await streamed.finishReason, whole.finishReason);
  assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
});

test("legacy completions", async () => {
  const legacy = { ...request, model: weir.completionModel(model), prompt: "Once upon a time" };
  const whole = await generateText(legacy);
  assert.ok(whole.text);
  assert.equal((await all(streamText(legacy).textStream)).join(""), whole.text);
});

const calling = { ...request, prompt: question, maxOutputTokens: 48 };
const tools = { weather: tool({ description: "The weather", inputSchema: Weather }) };

test("tools", async () => {
  const whole = await generateText({ ...calling, tools, toolChoice: "required" });
  assert.equal(whole.finishReason, "tool-calls");
  assert.equal(whole.toolCalls.length, 1);
  assert.equal(whole.toolCalls[0].toolName, "weather");
  Weather.parse(whole.toolCalls[0].input);

  const streamed = streamText({ ...calling, tools, toolChoice: "required" });
  await streamed.consumeStream();
  const calls = await streamed.toolCalls;
  assert.equal(await streamed.finishReason, "tool-calls");
  assert.deepEqual(calls[0].input, whole.toolCalls[0].input);
  assert.ok(calls[0].toolCallId);
});

test("a tool that is run", async () => {
  const execute = async () => "Rain.";
  const weather = tool({ description: "The weather", inputSchema: Weather, execute });
  const { toolResults } = await generateText({ ...calling, tools: { weather }, toolChoice: { type: "tool", toolName: "weather" } });
  assert.equal(toolResults[0].output, "Rain.");
});

test("generateObject", async () => {
  const { object } = await generateObject({ ...calling, schema: Weather });
  Weather.parse(object);
});

test("streamObject", async () => {
  const { object, partialObjectStream } = streamObject({ ...calling, schema: Weather });
  let last;
  for await (const partial of partialObjectStream) last = partial;
  assert.deepEqual(Weather.parse(last), await object);
});

test("generateText with an output", async () => {
  const { output } = await generateText({ ...calling, output: Output.object({ schema: Weather }) });
  Weather.parse(output);
});

function check(error, refusal) {
  assert.ok(APICallError.isInstance(error), String(error));
  assert.equal(error.statusCode, refusal.status);
  assert.ok(error.message.includes(refusal.message), error.message);
  const { type, param, code } = error.data.error;
  assert.deepEqual({ type, param, code }, { type: refusal.type, param: refusal.param, code: refusal.code });
  assert.equal(JSON.parse(error.responseBody).reason, refusal.reason);
  assert.ok(error.responseHeaders["x-request-id"]);
  // The statuses after which a retry makes sense.
  assert.equal(error.isRetryable, refusal.status === 429 || refusal.status >= 500);
}

for (const refusal of refusals) {
  const provider = createOpenAICompatible({ name: "weir", baseURL: refusal.url, apiKey: refusal.key });
  const asked = {
    model: provider(refusal.model),
    prompt: refusal.text,
    maxOutputTokens: 4,
    presencePenalty: refusal.presencePenalty,
    maxRetries: 0,
  };

  test(`refusal ${refusal.name}, regular`, async () => {
    await assert.rejects(generateText(asked), (error) => {
      check(error, refusal);
      return true;
    });
  });

  test(`refusal ${refusal.name}, stream`, async () => {
    let failed;
    await streamText({ ...asked, onError: ({ error }) => (failed = error) }).consumeStream();
    check(failed, refusal);
  });
}
