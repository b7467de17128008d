// A page's service worker, and nudged. Yours is what respondWith answers.
self.addEventListener('fetch', event => {
  // Streams are left to the browser: no respondWith, not even with a plain fetch.
  if (event.request.headers.get('accept')?.includes('text/event-stream')) return;
  event.respondWith(fetch(event.request));
});
