// The Vercel AI SDK: tools and structured outputs.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, Output, streamObject, streamText, tool } from "ai";
import { key, model, url } from "./weir.js";
import { question, Weather } from "./weather.js";

const weir = createOpenAICompatible({ name: "weir", baseURL: url, apiKey: key, supportsStructuredOutputs: true });
const request = { model: weir(model), prompt: question, maxOutputTokens: 64, temperature: 0, maxRetries: 0 };
const tools = { weather: tool({ description: "The weather in a city", inputSchema: Weather }) };

// Only a named tool is called once: of any tool, a small model makes as many calls as it has tokens for.
for (const toolChoice of [{ type: "tool", toolName: "weather" }]) {
  test(`tools, ${toolChoice.type ?? toolChoice}`, async () => {
    const whole = await generateText({ ...request, tools, toolChoice });
    assert.equal(whole.finishReason, "tool-calls");
    assert.equal(whole.toolCalls[0].toolName, "weather");
    Weather.parse(whole.toolCalls[0].input);

    const streamed = streamText({ ...request, tools, toolChoice });
    await streamed.consumeStream();
    const calls = await streamed.toolCalls;
    assert.equal(await streamed.finishReason, "tool-calls");
    assert.deepEqual(calls[0].input, whole.toolCalls[0].input);
    assert.ok(calls[0].toolCallId);
  });
}

test("a tool that is run", async () => {
  const execute = async () => "Rain, 12 degrees.";
  const weather = tool({ description: "The weather in a city", inputSchema: Weather, execute });
  const { toolResults } = await generateText({ ...request, tools: { weather }, toolChoice: { type: "tool", toolName: "weather" } });
  assert.equal(toolResults[0].output, "Rain, 12 degrees.");
});

test("generateObject", async () => {
  const { object } = await generateObject({ ...request, schema: Weather });
  Weather.parse(object);
});

test("streamObject", async () => {
  const { object, partialObjectStream } = streamObject({ ...request, schema: Weather });
  let last;
  for await (const partial of partialObjectStream) last = partial;
  assert.deepEqual(Weather.parse(last), await object);
});

test("generateText with an output", async () => {
  const { output } = await generateText({ ...request, output: Output.object({ schema: Weather }) });
  Weather.parse(output);
});
