/** Keys, or one key. */
export type Keys = string | Iterable<string>;

export interface PublisherOptions {
  /** The server, best by its internal address: `http://10.0.0.5:6835`. */
  url: string | URL;
  /** A publish key, a token with the scope `publish`, or a function that returns one for each request. */
  token?: string | (() => string);
  /** The longest that one request may take, in ms (2,000). */
  timeout?: number;
  /** How long keys are collected for one batch, in ms (50). */
  window?: number;
  /** The most keys that are queued, of all organisations together (10,000). */
  queue?: number;
  /** Receives what was enqueued and will not be published, and why. By default a warning on the console. */
  dropped?: (org: string, keys: Keys, error: Error) => unknown;
}

export interface Publisher {
  /**
   * Publishes now.
   * @throws {TypeError} an organisation or a key is no string; nothing is sent
   * @throws {PublishError} the server refuses, or does not respond
   */
  publish(org: string, keys: Keys): Promise<void>;
  /** Publishes with the next batch. Never throws: what is wrong is passed to `dropped`. */
  enqueue(org: string, keys: Keys): void;
  /** Sends what is queued at once, for at most so many ms (5,000) and one request; what is left is dropped. Ends the queue. */
  close(ms?: number): Promise<void>;
}

export function publisher(options: PublisherOptions): Publisher;

export class PublishError extends Error {
  /** The status of the response, if there is one. */
  status?: number;
  /** What the response says is wrong. */
  detail?: string;
  /** When the server asks to come back, in ms; 0 if it does not. */
  retryAfter: number;
  /** Whether the same may succeed later. */
  temporary: boolean;
}

export interface TicketOptions {
  /** How long the ticket opens streams (60). */
  seconds?: number;
  /** How long these streams may last (12 hours). */
  streamSeconds?: number;
  /** `subscribe`; `subscribe exclusive` for `?exclusive`; `publish` for a backend. */
  scope?: string;
  /** The topics that it is for: names, or `run-*`, or `*`; without it none. */
  topics?: string | string[];
}

/**
 * A token with which a page opens the streams of an organisation. The secret is that of `--jwt-secret-file`.
 * @throws {TypeError} what is no secret of 32 bytes, or no organisation
 */
export function ticket(secret: string, org: string, options?: TicketOptions): string;
