// A backend in TypeScript. What is marked as an error has to be one.

import { publisher, ticket, PublishError, type Keys, type Publisher } from '../../../src/browser/server.js';

const nudged: Publisher = publisher({
  url: new URL('http://10.0.0.5:6835'),
  token: () => ticket('a secret', '*', { scope: 'publish' }),
  timeout: 2_000,
  window: 50,
  queue: 10_000,
  dropped: (org: string, keys: Keys, error: Error) => void [org, keys, error.message],
});
nudged.enqueue('acme', new Set(['posts']));
nudged.publish('acme', 'posts').catch(error => {
  if (error instanceof PublishError && error.temporary) return error.retryAfter + (error.status ?? 0);
  throw error;
});
const closed: Promise<void> = nudged.close(1_000);
const text: string = ticket('a secret', 'acme', { seconds: 60, streamSeconds: 3_600, topics: ['run-*'] });
publisher({ url: 'http://10.0.0.5:6835', token: text, dropped: async () => void (await closed) });

// @ts-expect-error the server is named
publisher({});
// @ts-expect-error there is no such option
publisher({ url: 'http://10.0.0.5:6835', timeuot: 1 });
// @ts-expect-error keys are texts
nudged.enqueue('acme', [7]);
// @ts-expect-error it is not waited for
nudged.enqueue('acme', 'posts').then();
// @ts-expect-error seconds are an option
ticket('a secret', 'acme', 60);
// @ts-expect-error for no organisation
ticket('a secret');
