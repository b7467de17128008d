// An MCP client: node client.mjs URL. It calls the tool of server.mjs once, and prints what comes of it.
import { createHash } from 'node:crypto';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const client = new Client({ name: 'waiting', version: '1.0.0' });
const transport = new StreamableHTTPClientTransport(new URL(process.argv[2]));
await client.connect(transport);
console.log(`protocol ${transport.protocolVersion}`);

// The SDK reports a stream that broke as an error of the client, and lets the call wait for its own time-out.
const broken = new Promise((_, reject) => { client.onerror = reject; });
const onprogress = ({ message }) =>
  console.log(`progress ${createHash('sha256').update(message).digest('hex')}`);
try {
  const call = client.callTool({ name: 'work' }, undefined, { onprogress, timeout: 60_000 });
  const result = await Promise.race([call, broken]);
  console.log(`result ${result.content[0].text}`);
} catch (error) {
  console.log(`lost ${error.message}`);
}
process.exit();
