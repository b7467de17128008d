// An MCP server over Streamable HTTP: node server.mjs SILENCE, in milliseconds. It has one tool, whose calls send nothing
// for that long, report progress, send nothing again, and return. The SDK's own keepalive is off: older SDKs had none.
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

const silence = Number(process.argv[2]);
// An event of many reads and writes.
const report = 'half done: \r\n\n: ping\n\ndata: ✓ '.repeat(10_000);

async function work({ _meta, sendNotification, signal }) {
  console.log('call begins');
  signal.addEventListener('abort', () => console.log('call aborted'));
  await setTimeout(silence, undefined, { signal });
  const params = { progressToken: _meta.progressToken, progress: 1, total: 2, message: report };
  console.log(`progress ${createHash('sha256').update(report).digest('hex')}`);
  await sendNotification({ method: 'notifications/progress', params });
  await setTimeout(silence, undefined, { signal });
  console.log('call returns');
  return { content: [{ type: 'text', text: 'done' }] };
}

const http = createServer(async (request, response) => {
  // Without sessions: a server and a transport for each request, and no stream for GET.
  if (request.method !== 'POST') return response.writeHead(405).end();
  const mcp = new McpServer({ name: 'silent', version: '1.0.0' });
  mcp.registerTool('work', { description: 'Works in silence' }, work);
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, keepAliveMs: 0 });
  // It aborts the calls that have not returned.
  response.on('close', () => mcp.close());
  await mcp.connect(transport);
  await transport.handleRequest(request, response);
});
http.listen(0, '127.0.0.1', () => console.log(`listening on 127.0.0.1:${http.address().port}`));
