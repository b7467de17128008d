// Does what each line of its input says with server.js, and prints what came of it: node driver.mjs server.js
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const { publisher, ticket, PublishError } = await import(pathToFileURL(process.argv[2]));
let nudged, dropped = [], failures = 0;
const note = (org, keys, error) => dropped.push({ org, keys, error: error.message });
const actions = {
  new({ options }) {
    const { fails, ...rest } = options;
    const fail = () => {
      if (failures++ % 2) return Promise.reject(new Error('of the test'));
      throw new Error('of the test');
    };
    nudged = publisher({ ...rest, dropped: fails ? fail : note });
  },
  publish: ({ org, keys }) => nudged.publish(org, keys),
  enqueue: ({ org, keys }) => ({ returned: nudged.enqueue(org, keys) }),
  close: ({ ms }) => nudged.close(ms),
  dropped: () => ({ dropped: dropped.splice(0) }),
  ticket: ({ secret, org, options }) => ({ token: ticket(secret, org, options) }),
};
for await (const line of createInterface({ input: process.stdin })) {
  const { action, ...rest } = JSON.parse(line);
  let result;
  try {
    result = await actions[action](rest) ?? {};
  } catch (error) {
    const { message, status, detail, retryAfter, temporary } = error;
    result = { error: message, status, detail, retryAfter, temporary, isRefusal: error instanceof PublishError };
  }
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
