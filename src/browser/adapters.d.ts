/** What an adapter adds to the options of `nudged`. To serve two caches, call the handlers of both. */
export interface Handlers {
  connected(first?: boolean): void;
  invalidate(keys: string[]): void;
}

/**
 * Whether what is cached under `key` is stale, if `keys` are. Without one, a key is stale if one of the keys is it or its
 * beginning, with its parts joined by colons: `feed` and `feed:123` hit `['feed', 123, 'comments']`; a text has one part.
 */
export type Match = (key: any, keys: Set<string>) => boolean;

/**
 * TanStack Query 5: one invalidation of all queries that the keys hit. Those in use are read again, the others when
 * they are used. `connected` invalidates all, the first one too, because what the page read before its stream was open may
 * be stale already. With the option `since` there is no first one.
 */
export function query(
  client: {
    invalidateQueries(filters: { predicate: (query: any) => boolean }): unknown;
    getQueryCache(): { findAll(filters: { predicate?: (query: any) => boolean }): any[] };
  },
  match?: Match,
): Handlers;

/**
 * SWR, 2: `mutate` is that of `swr`, or of `useSWRConfig()` where there is a provider. SWR skips lists (`useSWRInfinite`);
 * with `unstable_serialize` of `swr/infinite` as `serialize` these are read again too, once they have been read, if a key
 * hits their first page; the pages after it where `revalidateAll` is set. Keys of `useSWRSubscription` are skipped. What is
 * not in use is read again when it is, unless the hook does not (`useSWRImmutable`, `revalidateIfStale: false`).
 */
export function swr(
  mutate: (filter: any) => unknown,
  match?: Match,
  serialize?: (getKey: (...page: any[]) => any) => string,
): Handlers;

/**
 * Events, for htmx, Alpine, Turbo and plain pages, on `document` or an element, from which they bubble: `nudged` when
 * everything is stale, `nudged:KEY` for each key, and `nudged-stale` for both, whose `detail.has(key)` says whether a key is.
 * The last one needs one listener, and is the only one that markup can name for every key: htmx takes no spaces, commas,
 * slashes, quotes and brackets in the name of an event, Alpine letters of ASCII in lower case, digits, `-`, `_` and `:`.
 */
export function dom(element?: EventTarget): Handlers;

/** A Map of promises by key. It has to hold promises: a result that is stored when it comes may be stale by then. */
export function cache(map: { delete(key: string): unknown; clear(): void }): Handlers;
