// SWR with React. Each test returns what was read, and what was to be read.
import { swr } from '/nudged-adapters.js';

const { createElement, useEffect } = require('react');
const { createRoot } = require('react-dom/client');
const { default: useSWR, SWRConfig, useSWRConfig } = require('swr');
const { default: useSWRInfinite, unstable_serialize } = require('swr/infinite');

const until = async holds => {
  const start = performance.now();
  while (!holds()) {
    if (performance.now() - start > 20_000) throw new Error(`not in time: ${holds}`);
    await new Promise(done => setTimeout(done, 1));
  }
};
// Renders these components, under a cache of their own, and returns its `mutate` and how to remove them.
const render = async (...components) => {
  const page = { root: createRoot(document.body.appendChild(document.createElement('div'))), seen: {}, shown: new Set() };
  const Config = () => {
    const { mutate } = useSWRConfig();
    useEffect(() => { page.mutate = mutate; }, [mutate]);
  };
  const provider = new Map();
  page.show = (...shown) => page.root.render(
    createElement(SWRConfig, { value: { provider: () => provider } }, createElement(Config), ...shown));
  page.show(...components.map(component => component(page)));
  await until(() => page.mutate);
  return page;
};
const reader = (key, fetcher, options) => page => {
  const Reader = () => {
    const { data } = useSWR(key, fetcher, options);
    page.seen[JSON.stringify(key)] = data;
    useEffect(() => {
      page.shown.add(key);
      return () => page.shown.delete(key);
    }, []);
    return null;
  };
  return createElement(Reader, { key: JSON.stringify(key) });
};
// Pages with readers of these keys, each of which has been read.
const reading = async keys => {
  const reads = [];
  const page = await render(...keys.map(key => reader(key, async read => { reads.push(read); return reads.length; })));
  await until(() => keys.every(key => page.seen[JSON.stringify(key)]));
  reads.length = 0;
  return { ...page, reads };
};

export const exactly_what_is_hit = async () => {
  const hit = ['posts', ['posts', 7], ['posts', { page: 2 }, 'x'], ['feed', 123], ['feed', '123', 'comments'], 'feed:123'];
  const { mutate, reads } = await reading([...hit, 'users', 'post', ['post'], ['feed', 12], 'feed', ['x', 'posts']]);
  swr(mutate).invalidate(['posts', 'feed:123', 'posts:7', 'nothing']);
  return [[...reads], hit];
};

export const keys_of_any_text = async () => {
  const hit = ['a,b', ['a', ',b'], ['größe', '🎈'], '@"x"', '/api/posts?page=1&q="a b"'];
  const { mutate, reads } = await reading([...hit, 'a', ['größe', 'x']]);
  swr(mutate).invalidate(['a,b', 'a:,b', 'größe:🎈', '@"x"', '/api/posts?page=1&q="a b"', '$inf$posts', '__proto__']);
  return [[...reads], hit];
};

export const everything_after_connected = async () => {
  const keys = ['posts', ['users', 1], 'x'];
  const { mutate, reads } = await reading(keys);
  swr(mutate).connected(true);
  return [[...reads], keys];
};

export const what_the_page_says = async () => {
  const { mutate, reads } = await reading(['/api/users/1', '/api/posts']);
  swr(mutate, (key, keys) => keys.has(key.split('/')[2])).invalidate(['users']);
  return [[...reads], ['/api/users/1']];
};

// Nothing is written, and no component sees undefined meanwhile.
export const the_data_stays_until_it_is_read = async () => {
  let read = 0, open;
  const page = await render(reader('posts', () => ++read === 1 ? 'before' : new Promise(done => { open = done; })));
  await until(() => page.seen['"posts"']);
  swr(page.mutate).invalidate(['posts']);
  await until(() => open);
  const meanwhile = page.seen['"posts"'];
  open('after');
  await until(() => page.seen['"posts"'] !== 'before');
  return [[meanwhile, page.seen['"posts"']], ['before', 'after']];
};

// A first read that a change overtakes does not count.
export const what_is_read_meanwhile = async () => {
  const opens = [];
  const page = await render(reader('posts', () => new Promise(done => { opens.push(done); })));
  await until(() => opens.length === 1);
  swr(page.mutate).invalidate(['posts']);
  const reads = opens.length;
  opens[1]?.('after');
  opens[0]('before');
  await until(() => page.seen['"posts"']);
  return [[reads, page.seen['"posts"']], [2, 'after']];
};

// What is not shown is read when it is shown.
export const what_is_shown_later = async () => {
  const reads = [];
  const component = reader('posts', async key => { reads.push(key); return reads.length; }, { dedupingInterval: 3_600_000 });
  const page = await render(component);
  await until(() => page.seen['"posts"'] === 1);
  page.show();
  await until(() => !page.shown.size);
  swr(page.mutate).invalidate(['posts']);
  const meanwhile = reads.length;
  page.show(component(page));
  await until(() => page.seen['"posts"'] === 2);
  return [[meanwhile, reads.length], [1, 2]];
};

const list = revalidateAll => async serialize => {
  const reads = [], getKey = page => ['posts', page];
  let count = 0;
  const component = page => {
    const List = () => {
      const { data } = useSWRInfinite(getKey, async key => { reads.push(key); return ++count; },
        { initialSize: 2, revalidateAll });
      page.seen.list = data;
      return null;
    };
    return createElement(List, { key: 'list' });
  };
  const page = await render(component);
  await until(() => page.seen.list);
  const { list } = page.seen;
  reads.length = 0;
  swr(page.mutate, undefined, serialize).invalidate(['posts']);
  if (serialize) await until(() => page.seen.list !== list);
  return reads.map(([, number]) => number);
};
export const lists_only_with_their_keys = async () => {
  const [all, first] = [list(true), list(false)];
  return [[await all(), await all(unstable_serialize), await first(unstable_serialize)], [[], [0, 1], [0]]];
};
