// A page in TypeScript. What is marked as an error has to be one.

import { nudged, type Nudged, type NudgedOptions, type NudgedWhy } from '../../../src/browser/nudged.js';

const position: NudgedOptions = { since: document.body.dataset.position, user: null };

const stream: Nudged = nudged('/api/acme/events', {
  ...position,
  connected: (first: boolean) => void first,
  invalidate: (keys: string[]) => void keys,
  status(state, why) {
    const reason: number | NudgedWhy | undefined = why;
    if (state === 'closed' && reason === 'no ticket') location.reload();
  },
  event: (name: string, data: string, id: string) => void [name, data, id],
  ticket: () => fetch('/ticket').then(response => (response.ok ? response.text() : null)),
  keys: ['posts', 'feed:*'],
  share: true,
  hidden: false,
  spread: 0,
  silence: 30_000,
});
const id: string = stream.id;
stream.close();
nudged(new URL('/api/acme/events', location.href), { since: id, ticket: () => 'text' });
nudged('/api/acme/events');

// @ts-expect-error there is no such option
nudged('/', { invalidated() {} });
// @ts-expect-error a list
nudged('/', { keys: 'posts' });
// @ts-expect-error milliseconds
nudged('/', { spread: '2s' });
// @ts-expect-error a ticket is text
nudged('/', { ticket: () => 7 });
// @ts-expect-error it is read only
stream.id = '';
// @ts-expect-error without a stream
nudged();
