// What a change means to the caches in use. Each adapter is the handlers for one: nudged(url, query(client)).

// Whether a cached key is stale: if one of the keys is it, or its beginning, with its parts joined by colons.
// feed and feed:123 are beginnings of ['feed', 123, 'comments'].
const isHit = (key, keys) => [key].flat().some((_, i, parts) => keys.has(parts.slice(0, i + 1).join(':')));

const staleBy = (keys, match) => {
  const all = new Set(keys);
  return key => match(key, all);
};

/* TanStack Query. */
export const query = (client, match = isHit) => {
  const reread = isStale => {
    const stale = client.getQueryCache().findAll({ predicate: query => isStale(query.queryKey) });
    const reads = new Map(stale.map(query => [query, query.promise]));
    client.invalidateQueries({ predicate: query => reads.has(query) });
    reads.forEach((read, query) => repeat(read, query, client));
  };
  return { connected: () => reread(() => true), invalidate: keys => reread(staleBy(keys, match)) };
};
// An invalidation does not begin a query's first read again, which may be older than the change.
const repeated = new WeakSet();
const repeat = (read, query, client) => {
  if (!read || query.promise !== read || repeated.has(read)) return;
  repeated.add(read);
  read.catch(() => {}).then(() => client.invalidateQueries({ predicate: other => other === query }));
};

/* SWR. Its filters are not asked about lists (useSWRInfinite); these are found by the key of their first page. */
export const swr = (mutate, match = isHit, serialize) => {
  const reread = isStale => mutate(key => {
    if (!isStale(key)) return false;
    if (serialize) mutate(serialize(() => key));
    return true;
  });
  return { connected: () => reread(() => true), invalidate: keys => reread(staleBy(keys, match)) };
};

/* Events: `nudged` if everything is stale, `nudged:KEY` for each key, and `nudged-stale` for both, with detail.has(key). */
export const dom = (element = globalThis.document) => {
  const send = (name, detail) => element.dispatchEvent(new CustomEvent(name, { bubbles: true, detail }));
  return {
    connected: () => (send('nudged'), send('nudged-stale', { has: () => true })),
    invalidate: keys => (keys.forEach(key => send('nudged:' + key)), send('nudged-stale', new Set(keys))),
  };
};

/* A Map of promises of what was read, by key. */
export const cache = map => ({
  connected: () => map.clear(),
  invalidate: keys => keys.forEach(key => map.delete(key)),
});
