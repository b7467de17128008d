// Has the client parse streams: a JSON array of pieces in hex comes in on each line, and what was received goes out:
// events, the time until the next request, last event id.

import { createInterface } from 'node:readline';
import { network, pass, stream, waits } from '../node/page.mjs';
import { nudged } from '../../../src/browser/nudged.js';

async function received(pieces) {
  const events = [];
  network.answer = () => stream(pieces, { ends: true });
  const client = nudged('/', { spread: 0, event: (...event) => { events.push(event); } });
  await pass(0);
  const [retry] = waits(), { id } = client;
  client.close();
  await pass(retry);
  return [events, retry, id];
}

for await (const line of createInterface({ input: process.stdin })) {
  const pieces = JSON.parse(line).map(piece => Buffer.from(piece, 'hex'));
  console.log(JSON.stringify(await received(pieces)));
}
