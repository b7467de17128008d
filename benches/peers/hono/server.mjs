// Hono on Node or Bun, in the way in which the application that nudged was made for served invalidations: a
// ReadableStream, closures and a keepalive interval for each connection; a publish calls every listener of the org.
import { Hono } from "hono";

const listeners = new Map();
const encoder = new TextEncoder();
const app = new Hono();

app.get("/api/:org/events", (c) => {
  const org = c.req.param("org");
  const signal = c.req.raw.signal;
  let cleanup = () => {};
  const stream = new ReadableStream({
    start(controller) {
      const send = (text) => {
        try {
          controller.enqueue(encoder.encode(text));
        } catch {}
      };
      send("event: connected\ndata: {}\n\n");
      const listener = (keys) => send(`event: invalidate\ndata: ${JSON.stringify(keys)}\n\n`);
      if (!listeners.has(org)) listeners.set(org, new Set());
      listeners.get(org).add(listener);
      const keepalive = setInterval(() => send(": keepalive\n\n"), 30_000);
      let done = false;
      cleanup = () => {
        if (done) return;
        done = true;
        clearInterval(keepalive);
        signal.removeEventListener("abort", cleanup);
        const all = listeners.get(org);
        all?.delete(listener);
        if (all?.size === 0) listeners.delete(org);
        try {
          controller.close();
        } catch {}
      };
      signal.addEventListener("abort", cleanup);
    },
    cancel() {
      cleanup();
    },
  });
  return new Response(stream, {
    headers: {
      "Content-Type": "text/event-stream",
      "Cache-Control": "no-cache",
      Connection: "keep-alive",
    },
  });
});

app.post("/api/:org/events", async (c) => {
  const event = await c.req.json();
  for (const listener of [...(listeners.get(c.req.param("org")) ?? [])]) listener(event);
  return c.json({}, 202);
});

const settings = { fetch: app.fetch, port: Number(process.env.PORT ?? 0), hostname: "127.0.0.1" };
const listening = ({ port }) => console.log(`listening on http://127.0.0.1:${port}`);
if (globalThis.Bun) {
  // Bun closes a connection that was idle for 10 s unless that is disabled (Bun's guide "Server-Sent Events").
  listening(Bun.serve({ ...settings, idleTimeout: 0 }));
} else {
  const { serve } = await import("@hono/node-server");
  serve(settings, listening);
}
