// TanStack Query as it is published, and what needs no browser: node --test node.mjs, with the folder of it in MODULES.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';

import { cache, dom, query } from '../../../src/browser/adapters.js';

const { QueryClient, QueryObserver, InfiniteQueryObserver } = createRequire(process.env.MODULES)('@tanstack/query-core');

// A client with queries in use, all of which have been read, and the keys of the reads since.
const page = async (keys, options) => {
  const client = new QueryClient({ defaultOptions: { queries: { staleTime: Infinity, retry: false, ...options } } });
  const reads = [];
  const queryFn = ({ queryKey }) => {
    reads.push(queryKey);
    return reads.length;
  };
  for (const queryKey of keys) new QueryObserver(client, { queryKey, queryFn }).subscribe(() => {});
  await idle(client);
  assert.deepEqual(reads, keys);
  reads.length = 0;
  return { client, reads, queryFn };
};
const until = async holds => {
  const start = performance.now();
  do {
    assert.ok(performance.now() < start + 20_000, `not in time: ${holds}`);
    await new Promise(setImmediate);
  } while (!holds());
};
const idle = client => until(() => !client.isFetching());
// A read that ends when the test says so, with what was there when it began.
const gate = () => {
  const gate = { value: 'before', reads: 0 };
  gate.queryFn = () => {
    const { value } = gate;
    gate.reads += 1;
    return new Promise((done, failed) => Object.assign(gate, { open: () => done(value), fail: failed }));
  };
  return gate;
};

test('exactly the queries in use that a key hits are read again, once', async () => {
  const keys = [['posts'], ['posts', { page: 2 }], ['posts', 7, 'comments'], ['users'], ['post']];
  const { client, reads, queryFn } = await page(keys);
  await client.prefetchQuery({ queryKey: ['posts', 'unused'], queryFn });
  reads.length = 0;
  query(client).invalidate(['posts']);
  await idle(client);
  assert.deepEqual(reads, keys.slice(0, 3));
  // It is read when it is used.
  assert.equal(client.getQueryState(['posts', 'unused']).isInvalidated, true);
  new QueryObserver(client, { queryKey: ['posts', 'unused'], queryFn }).subscribe(() => {});
  await idle(client);
  assert.deepEqual(reads.slice(3), [['posts', 'unused']]);
});

test('a number in a query is the text in a key, and parts are whole', async () => {
  const keys = [['feed', 123], ['feed', '123', 'comments'], ['feed:123'], ['feed', 12], ['feed', 1234], ['feed'], [], ['123']];
  const { client, reads } = await page(keys);
  query(client).invalidate(['feed:123']);
  await idle(client);
  assert.deepEqual(reads, keys.slice(0, 3));
});

test('a batch is one pass over the queries, and reads none twice', async () => {
  const keys = [['posts', 7], ['users', 1]];
  const { client, reads } = await page(keys);
  const passes = [];
  const { invalidateQueries } = client;
  client.invalidateQueries = (...filters) => (passes.push(filters), invalidateQueries.apply(client, filters));
  query(client).invalidate(['posts', 'posts:7', 'users:1', 'nothing']);
  await idle(client);
  assert.deepEqual(reads, keys);
  assert.equal(passes.length, 1);
});

test('a key that hits nothing reads nothing', async () => {
  const { client, reads } = await page([['posts']]);
  query(client).invalidate(['post', 'posts:7', '', 'constructor']);
  await idle(client);
  assert.deepEqual(reads, []);
});

test('keys with commas, colons, quotes and any letters are what they are', async () => {
  const keys = [['a,b'], ['a', ',b'], ['a:b:c'], ['"\\\''], ['größe', '🎈'], ['a b'], ['__proto__']];
  const { client, reads } = await page([...keys, ['a'], ['b'], ['größe', 'x']]);
  query(client).invalidate(['a,b', 'a:,b', 'a:b:c', '"\\\'', 'größe:🎈', 'a b', '__proto__']);
  await idle(client);
  assert.deepEqual(reads, keys);
});

test('after connected all queries in use are read again, once', async () => {
  const keys = [['posts'], ['users', 1], []];
  const { client, reads } = await page(keys);
  query(client).connected(true);
  await idle(client);
  assert.deepEqual(reads, keys);
});

test('a function of the page says what is hit', async () => {
  const { client, reads } = await page([['users', 1], ['posts']]);
  query(client, ([name], keys) => keys.has(`table/${name}`)).invalidate(['table/users', 'posts']);
  await idle(client);
  assert.deepEqual(reads, [['users', 1]]);
});

// SCENARIO: a key is published while a query is read for the first time.
// BUG: TanStack Query goes on with that read, and takes its data, from before the change, for new.
// FIX: it is read again when that read has ended, or has failed.
for (const ends of ['open', 'fail']) {
  test(`a first read that a change overtakes is repeated (${ends})`, async () => {
    const client = new QueryClient({ defaultOptions: { queries: { retry: false } } });
    const read = gate();
    const observer = new QueryObserver(client, { queryKey: ['posts'], queryFn: read.queryFn });
    observer.subscribe(() => {});
    const handlers = query(client);
    read.value = 'after';
    handlers.invalidate(['posts']);
    handlers.invalidate(['posts']);
    handlers.connected();
    assert.equal(read.reads, 1);
    read[ends](new Error('the test ends it'));
    await until(() => read.reads === 2);
    read.open();
    await idle(client);
    assert.deepEqual([read.reads, observer.getCurrentResult().data], [2, 'after']);
  });
}

test('so is one of a query that is not in use yet', async () => {
  const client = new QueryClient({ defaultOptions: { queries: { staleTime: Infinity } } });
  const read = gate();
  const prefetched = client.prefetchQuery({ queryKey: ['posts'], queryFn: read.queryFn });
  read.value = 'after';
  query(client).invalidate(['posts']);
  read.open();
  await prefetched;
  await idle(client);
  const observer = new QueryObserver(client, { queryKey: ['posts'], queryFn: read.queryFn });
  observer.subscribe(() => {});
  read.open();
  await idle(client);
  assert.deepEqual([read.reads, observer.getCurrentResult().data], [2, 'after']);
});

test('a later read that a change overtakes is begun again, and its result does not count', async () => {
  const client = new QueryClient();
  const read = gate();
  const observer = new QueryObserver(client, { queryKey: ['posts'], queryFn: read.queryFn });
  observer.subscribe(() => {});
  read.open();
  await idle(client);
  observer.refetch();
  const { open } = read;
  read.value = 'after';
  query(client).invalidate(['posts']);
  assert.equal(read.reads, 3);
  open();
  read.open();
  await idle(client);
  assert.deepEqual([read.reads, observer.getCurrentResult().data], [3, 'after']);
});

test('a list of pages is read again with all its pages', async () => {
  const client = new QueryClient();
  const reads = [];
  const observer = new InfiniteQueryObserver(client, {
    queryKey: ['posts', 'pages'], initialPageParam: 0, getNextPageParam: (_, pages) => pages.length,
    queryFn: ({ pageParam }) => reads.push(pageParam),
  });
  observer.subscribe(() => {});
  await idle(client);
  await observer.fetchNextPage();
  reads.length = 0;
  query(client).invalidate(['posts']);
  await idle(client);
  assert.deepEqual(reads, [0, 1]);
});

test('what a cache of promises holds for a key is forgotten, and all of it after connected', async () => {
  const read = ['posts', 'posts:7', 'a, b'].map(key => [key, Promise.resolve(key)]);
  const map = new Map(read);
  cache(map).invalidate(['posts', 'a, b', 'nothing']);
  assert.deepEqual([...map.keys()], ['posts:7']);
  cache(map).connected(false);
  assert.equal(map.size, 0);
});

test('an adapter can be made where there is no document', () => {
  assert.equal(typeof dom().connected, 'function');
});
