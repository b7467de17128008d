/** What a page sets, and the functions of it that are called. Every option may be left out. */
export interface NudgedOptions {
  /**
   * Everything that the page shows may be stale: read it all. Called when the first stream opens, unless
   * `since` was given, and whenever something may have been missed: the server was started anew, its history does
   * not reach back, another tab held the stream meanwhile.
   *
   * `first`: nothing was received before. All other calls are delayed by a random part of `spread`.
   */
  connected?(first: boolean): void;

  /**
   * These keys are stale: read again what depends on them. Each key is named once, what came in quick
   * succession in one call.
   */
  invalidate?(keys: string[]): void;

  /**
   * How the connection is, called at each change, for a sign in the page or a log.
   *
   * `why` for `'connecting'`, after which the client goes on by itself:
   * * `undefined`: at the start, and if the stream ended or the network failed;
   * * a number: the HTTP status of the response; 200 is one that is no event stream, a proxy's page for example;
   * * `'silent'`: nothing came for longer than the server promises, or than `silence`;
   * * `'ticket'`: the function `ticket` failed, took longer than 10 s, or returned no text that fits into a header.
   *
   * `why` for `'closed'`, which is final:
   * * `undefined`: `close()` was called;
   * * 401 (if there is no `ticket`), 403, 404 or 410: the HTTP status;
   * * `'no ticket'`: the function `ticket` returned `null`;
   * * `'closed'`: the topic was closed, or another client took its place (`?exclusive`).
   */
  status?(state: NudgedState, why?: number | NudgedWhy): void;

  /**
   * Every event as it comes, for topics and logs: name, data as text, and last event id. Comes at once, in hidden
   * pages too. With it a page has a stream of its own (`share` counts as `false`), because a tab that is opened
   * later would lack what came before. Do not use `connected` and `invalidate` to follow a topic: they may be called
   * later than `event` is with what came behind them.
   */
  event?(name: string, data: string, id: string): void;

  /**
   * Returns a token for `authorization: Bearer`, `null` if the user is logged out, which is final, or fails, after
   * which it is called again: after 3 s, then twice as long each time up to 60 s, ±25 %. Called at the start,
   * and when the server responds 401. White space around the token is removed.
   *
   * Tabs share a stream if their tokens have the same claims, apart from `exp`, `nbf`, `iat`, `until` and `jti`; a
   * token that is no JWT counts as a whole. A new token with other claims is another user: the client starts anew.
   */
  ticket?(): string | null | Promise<string | null>;

  /**
   * For sessions with cookies: any text that is another one for another user. Tabs of different users share no
   * stream. With it cookies are sent to other origins too (`credentials: 'include'`), which these have to allow.
   */
  user?: string | null;

  /**
   * The position from which the page was made (`GET /api/{org}/position`, read before the database). The stream
   * continues there, so that nothing need be read again at first. `Nudged.id` of an earlier call will do.
   */
  since?: string | null;

  /**
   * Only these keys, `'feed:*'` for all that begin so: a hint that saves traffic; others may come. Tabs share a
   * stream only if they name the same keys. From eight keys on everything is sent.
   */
  keys?: string[] | null;

  /**
   * Whether the tabs of this origin share one stream, for the same URL, `keys`, user and ticket. Default `true`.
   * Without Web Locks or BroadcastChannel, on plain http for example, each tab has its own.
   */
  share?: boolean | null;

  /**
   * Whether hidden tabs are called too. Default `false`: what is stale is collected, up to 1,000 keys and then as
   * everything, until the tab becomes visible.
   */
  hidden?: boolean | null;

  /**
   * The time, in milliseconds, within which a `connected` that is not the first is passed on at random, so that not
   * all pages read at once after a restart. 0 to 86,400,000 (a day), default 2000.
   */
  spread?: number | null;

  /**
   * The silence, in milliseconds, after which a stream counts as dead and is opened again. 0 to 86,400,000 (a day).
   * Default, and for 0: 1.5 times the period that the server names, or 45 s for one that names none. Less than the
   * server's period makes every quiet stream end.
   */
  silence?: number | null;
}

export type NudgedState = 'connecting' | 'open' | 'closed';
export type NudgedWhy = 'silent' | 'ticket' | 'no ticket' | 'closed';

export interface Nudged {
  /**
   * The id up to which the page has been called, at first that of `since`, or `''`: what is collected, or waits for a
   * part of `spread`, is not counted. As `since` of a later call it continues there.
   */
  readonly id: string;

  /** Ends the stream, or leaves it to the other tabs. Nothing is called afterwards but `status`, with `'closed'`. */
  close(): void;
}

/**
 * Opens the stream, or takes part in that of another tab, and keeps it open until `close()` or a final `status`:
 * failures are tried again after the server's `retry:` (3 s without one), then twice as long each time up to 60 s,
 * ±25 %, and not before `retry-after`, up to 10 minutes. `online` ends such a pause.
 *
 * No function is called before this returns. One that throws is reported as an error of the page, and changes nothing.
 * An option that does not exist, or has a wrong type or value, is ignored, with a warning on the console, once.
 *
 * Without `document` (on a server, in a worker) nothing happens, and `id` is `''`.
 *
 * @param url The stream, `/api/acme/events` for example, relative to the page.
 * @throws TypeError if `url` is none.
 */
export function nudged(url: string | URL, options?: NudgedOptions): Nudged;
