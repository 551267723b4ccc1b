// OpenAI's own Node client: tools and structured outputs.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { key, model, url } from "./weir.js";
import { question, Weather } from "./weather.js";

const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const request = { model, messages: [{ role: "user", content: question }], max_tokens: 64, temperature: 0 };
const named = { type: "function", function: { name: "weather" } };

test("parse a tool call", async () => {
  const tools = [zodFunction({ name: "weather", parameters: Weather })];
  const { choices } = await client.chat.completions.parse({ ...request, tools, tool_choice: "required", parallel_tool_calls: false });
  assert.equal(choices[0].finish_reason, "tool_calls");
  Weather.parse(choices[0].message.tool_calls[0].function.parsed_arguments);
});

test("the stream helper: tool calls", async () => {
  const tools = [zodFunction({ name: "weather", parameters: Weather })];
  const stream = client.chat.completions.stream({ ...request, tools, tool_choice: named });
  const done = [];
  stream.on("tool_calls.function.arguments.done", (event) => done.push(event));
  const { choices } = await stream.finalChatCompletion();
  assert.equal(done.length, 1);
  assert.equal(done[0].name, "weather");
  Weather.parse(choices[0].message.tool_calls[0].function.parsed_arguments);
});

for (const stream of [false, true]) {
  test(`runTools, ${stream ? "stream" : "regular"}`, async () => {
    const called = [];
    const weather = (args) => {
      called.push(args);
      return "Rain, 12 degrees.";
    };
    // Only with the tool named does it end after one call.
    const runner = client.chat.completions.runTools({
      ...request,
      stream,
      tools: [zodFunction({ name: "weather", parameters: Weather, function: weather })],
      tool_choice: named,
    });
    assert.equal(await runner.finalFunctionToolCallResult(), "Rain, 12 degrees.");
    assert.equal(called.length, 1);
    Weather.parse(called[0]);
  });
}

test("runTools goes on after a call", async () => {
  let rounds = 0;
  const runner = client.chat.completions.runTools(
    {
      ...request,
      tools: [zodFunction({ name: "weather", parameters: Weather, function: () => "Rain, 12 degrees." })],
      tool_choice: "required",
      parallel_tool_calls: false,
    },
    { maxChatCompletions: 2 },
  );
  runner.on("functionToolCallResult", () => (rounds += 1));
  await runner.done();
  assert.ok(rounds >= 2);
});

test("structured output", async () => {
  const response_format = zodResponseFormat(Weather, "weather");
  const { choices } = await client.chat.completions.parse({ ...request, response_format });
  Weather.parse(choices[0].message.parsed);
  const streamed = await client.chat.completions.stream({ ...request, response_format }).finalChatCompletion();
  Weather.parse(streamed.choices[0].message.parsed);
});
