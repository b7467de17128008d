// nudged behind http-proxy 1.18 (webpack-dev-server, http-proxy-middleware and others use it). Yours are the addresses.
const http = require('node:http');
const httpProxy = require('http-proxy');

const proxy = httpProxy.createProxyServer({ target: 'http://127.0.0.1:6834', xfwd: true });

// By itself it closes neither side when the other one has gone: ended visits would occupy their seats for ever (where you
// cannot change it, nudged's --max-stream-age ends them), and pages would wait for ever for a server that was killed.
proxy.on('proxyReq', (upstream, request, response) => response.on('close', () => upstream.destroy()));
proxy.on('proxyRes', (upstream, request, response) => upstream.on('close', () => response.destroy()));

// At any status but 200 an EventSource gives up for good.
proxy.on('error', (error, request, response) => {
  if (response.headersSent) return response.destroy();
  const stream = request.method === 'GET' && /text\/event-stream/.test(request.headers.accept);
  if (!stream) return response.writeHead(503).end();
  const headers = { 'content-type': 'text/event-stream', 'cache-control': 'no-store' };
  // Pages of other origins need these, and there is nothing here to read.
  if (request.headers.origin) headers['access-control-allow-origin'] = request.headers.origin;
  headers['access-control-allow-credentials'] = 'true';
  response.writeHead(200, headers).end('retry: 3000\n');
});

http.createServer((request, response) => proxy.web(request, response)).listen(8080, '127.0.0.1');
