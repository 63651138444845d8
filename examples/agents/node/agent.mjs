// Counts stock and orders what is missing, with the official `openai` client for Node: tool calls, a stream, one question.
import OpenAI from "openai";

const stock = { paper: 12, toner: 0, pens: 40, folders: 3, staples: 7 };
const parameters = JSON.parse(process.env.AWGP_PARAMETERS || "{}");
const task = parameters.task || "Count paper, toner, pens, folders and staples, and order what has run out.";
const model = parameters.model || "awgp/scripted";
const mostSteps = 20;

const oneItem = { type: "object", properties: { item: { type: "string" } }, required: ["item"] };
const describe = (name, description) => ({ type: "function", function: { name, description, parameters: oneItem } });
const tools = [
  describe("count", "How many pieces of an item are in stock."),
  describe("order", "Orders an item, if that is permitted."),
];

/** Asks whether an item may be ordered, and waits for people where they are asked. */
async function order(item) {
  const asked = {
    kind: "purchase.order", target: item, parameters: {}, reason: `${item} has run out`, mode: "wait",
    idempotency_key: `order-${item}`,
  };
  const headers = { "Content-Type": "application/json" };
  let answer = await call("/actions", { method: "POST", headers, body: JSON.stringify(asked) });
  while (answer.status === "pending") {
    await new Promise((wake) => setTimeout(wake, 1000));
    answer = await call(`/actions/${answer.id}?wait=25`);
  }
  console.log(`order ${item}: ${answer.status} (${answer.reason})`);
  return { status: answer.status, reason: answer.reason };
}

async function call(path, options = {}) {
  const answer = await fetch(process.env.AWGP_URL + path, { ...options, signal: AbortSignal.timeout(60_000) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

const client = new OpenAI();
const messages = [{ role: "user", content: task }];
for (let step = 0; step < mostSteps; step++) {
  const { message } = (await client.chat.completions.create({ model, messages, tools })).choices[0];
  messages.push(message);
  if (!message.tool_calls?.length) break;
  for (const { id, function: wanted } of message.tool_calls) {
    const { item } = JSON.parse(wanted.arguments);
    console.log(`tool ${wanted.name} ${item}`);
    const found = wanted.name === "count" ? { item, pieces: stock[item] ?? 0 } : await order(item);
    messages.push({ role: "tool", tool_call_id: id, content: JSON.stringify(found) });
  }
}
messages.push({ role: "user", content: "Sum it up." });
let pieces = 0;
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  const text = chunk.choices[0]?.delta?.content;
  if (text) {
    pieces += 1;
    process.stdout.write(text);
  }
}
console.log(`\nstreamed ${pieces} pieces`);
