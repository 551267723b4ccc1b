// OpenAI's own Node client.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { question, Weather } from "./weather.js";
import { all, greeting, key, model, refusals, url } from "./weir.js";

const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const request = { model, messages: greeting, max_tokens: 8, temperature: 0 };

test("a stream adds up to the regular answer", async () => {
  const answer = await client.chat.completions.create(request);
  const chunks = await all(
    await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } }),
  );
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  assert.ok(text);
  assert.equal(text, answer.choices[0].message.content);
  assert.deepEqual(chunks.at(-1).usage, answer.usage);
  assert.ok(answer._request_id);
});

test("the stream helper", async () => {
  const stream = client.chat.completions.stream(request);
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.ok(text);
  assert.equal(text, final.choices[0].message.content);
  assert.equal(final.choices[0].message.role, "assistant");
});

test("the stream helper with n", async () => {
  const { choices } = await client.chat.completions.stream({ ...request, n: 2 }).finalChatCompletion();
  assert.equal(choices.length, 2);
  assert.ok(choices[0].message.content);
  assert.equal(choices[0].message.content, choices[1].message.content);
});

test("a raw response", async () => {
  const { data, response, request_id } = await client.chat.completions.create(request).withResponse();
  assert.ok(data.choices[0].message.content);
  assert.equal(request_id, response.headers.get("x-request-id"));
});

test("legacy completions", async () => {
  const legacy = { model, prompt: "Once upon a time", max_tokens: 8, temperature: 0 };
  const whole = await client.completions.create(legacy);
  const chunks = await all(await client.completions.create({ ...legacy, stream: true }));
  assert.ok(whole.choices[0].text);
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), whole.choices[0].text);
});

test("models", async () => {
  const models = await all(client.models.list());
  assert.ok(models.some((each) => each.id === model));
  assert.equal((await client.models.retrieve(model)).id, model);
});

const calling = { ...request, messages: [{ role: "user", content: question }], max_tokens: 48 };
const named = { type: "function", function: { name: "weather" } };

test("parse a tool call", async () => {
  const tools = [zodFunction({ name: "weather", parameters: Weather })];
  const { choices } = await client.chat.completions.parse({ ...calling, tools, tool_choice: "required" });
  assert.equal(choices[0].finish_reason, "tool_calls");
  Weather.parse(choices[0].message.tool_calls[0].function.parsed_arguments);
});

test("the stream helper: tool calls", async () => {
  const tools = [zodFunction({ name: "weather", parameters: Weather })];
  const stream = client.chat.completions.stream({ ...calling, tools, tool_choice: named });
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
      return "Rain.";
    };
    // runTools ends after one call only if `tool_choice` names the tool; with `required` it would call it again and again.
    const runner = client.chat.completions.runTools({
      ...calling,
      stream,
      tools: [zodFunction({ name: "weather", parameters: Weather, function: weather })],
      tool_choice: named,
    });
    assert.equal(await runner.finalFunctionToolCallResult(), "Rain.");
    assert.equal(called.length, 1);
    Weather.parse(called[0]);
  });
}

test("runTools goes on after a call", async () => {
  let rounds = 0;
  const runner = client.chat.completions.runTools(
    {
      ...calling,
      tools: [zodFunction({ name: "weather", parameters: Weather, function: () => "Rain." })],
      tool_choice: "required",
    },
    { maxChatCompletions: 2 },
  );
  runner.on("functionToolCallResult", () => (rounds += 1));
  await runner.done();
  assert.ok(rounds >= 2);
});

test("structured output", async () => {
  const response_format = zodResponseFormat(Weather, "weather");
  const { choices } = await client.chat.completions.parse({ ...calling, response_format });
  Weather.parse(choices[0].message.parsed);
  const streamed = await client.chat.completions.stream({ ...calling, response_format }).finalChatCompletion();
  Weather.parse(streamed.choices[0].message.parsed);
});

const exceptions = {
  400: OpenAI.BadRequestError,
  401: OpenAI.AuthenticationError,
  403: OpenAI.PermissionDeniedError,
  404: OpenAI.NotFoundError,
  429: OpenAI.RateLimitError,
  500: OpenAI.InternalServerError,
};

for (const refusal of refusals) {
  const asked = {
    model: refusal.model,
    messages: [{ role: "user", content: refusal.text }],
    max_tokens: 4,
    presence_penalty: refusal.presencePenalty,
  };
  const refusing = new OpenAI({ baseURL: refusal.url, apiKey: refusal.key, maxRetries: 0 });
  const ways = {
    regular: () => refusing.chat.completions.create(asked),
    stream: () => refusing.chat.completions.create({ ...asked, stream: true }),
    "stream helper": () => refusing.chat.completions.stream(asked).finalChatCompletion(),
  };
  for (const [way, ask] of Object.entries(ways)) {
    test(`refusal ${refusal.name}, ${way}`, async () => {
      await assert.rejects(ask, (error) => {
        assert.ok(error instanceof exceptions[refusal.status], error.constructor.name);
        const { status, type, code, param } = error;
        const { status: status_, type: type_, code: code_, param: param_ } = refusal;
        assert.deepEqual({ status, type, code, param }, { status: status_, type: type_, code: code_, param: param_ });
        assert.ok(error.message.includes(refusal.message), error.message);
        assert.equal(error.requestID, error.headers.get("x-request-id"));
        assert.ok(error.requestID);
        return true;
      });
    });
  }
}
