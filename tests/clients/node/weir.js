// The server that test_node.py has started, and its table of refusals.
export const { url, key, model, refusals } = JSON.parse(process.env.WEIR_CLIENTS);

export const greeting = [{ role: "user", content: "Say hello." }];

export async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}
