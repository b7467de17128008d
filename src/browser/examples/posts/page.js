// Reads again what was changed, and shows why.
import { nudged } from '/nudged.js';

const list = document.getElementById('posts');
const element = id => document.getElementById(id);
const pause = ms => new Promise(done => setTimeout(done, ms));

const log = text => {
  const line = document.createElement('li');
  line.textContent = `${new Date().toLocaleTimeString('en-GB')} ${text}`;
  element('log').prepend(line);
  while (element('log').children.length > 4) element('log').lastChild.remove();
};

// The server has escaped what it sends.
const show = (path, text) => {
  const focus = document.activeElement?.id, id = path.replace('/posts/', 'post-'), isList = path === '/posts';
  const known = new Set([...list.children].map(post => post.id));
  if (isList) list.innerHTML = text;
  else if (element(id)) element(id).outerHTML = text;
  for (const post of list.children) if (isList ? !known.has(post.id) : post.id === id) post.className = 'new';
  if (focus) element(focus)?.focus();
};

const read = async path => {
  for (;; await pause(1000)) {
    try {
      const response = await fetch(path);
      if (response.ok) return await response.text();
      if (response.status === 404) return '';
    } catch {
      // The backend is away: later again, or the page would be stale.
    }
  }
};

// One after the other, so that no older answer replaces a newer one.
let reading = Promise.resolve();
const reread = (paths, why) => {
  reading = reading.then(async () => {
    for (const path of paths) {
      show(path, await read(path));
      log(`${why}: read ${path} again`);
    }
  });
};

// What a key stands for on this page, if it is there.
const pathOf = key => {
  if (key === 'posts') return '/posts';
  const id = /^post:(\d+)$/.exec(key)?.[1];
  return id && element(`post-${id}`) ? `/posts/${id}` : undefined;
};

const { nudged: since } = document.body.dataset;
log(since ? 'the page has its posts: nothing to read' : 'the page was made while nudged was away');
let isOpen = false;
nudged('/api/acme/events', {
  since,
  async ticket() {
    const response = await fetch('/ticket');
    if (response.status === 401) return null;
    if (!response.ok) throw new Error(`no ticket: ${response.status}`);
    return response.text();
  },
  connected: () => reread(['/posts'], 'connected (something may have been missed)'),
  invalidate: keys => reread([...new Set(keys.map(pathOf))].filter(Boolean), `invalidate ${keys.join(', ')}`),
  status(state, why) {
    isOpen = state === 'open';
    element('status').textContent = why ? `${state} (${why})` : state;
    element('status').className = state;
  },
});

// What this page writes comes back as a key, to it as to all others.
const write = async (path, body, key) => {
  try {
    const response = await fetch(path, { method: 'POST', body });
    if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
    if (!isOpen) reread([pathOf(key)], 'written while there is no stream');
    return true;
  } catch ({ message }) {
    alert(`This was not written: ${message}`);
    return false;
  }
};
element('new').addEventListener('submit', async event => {
  event.preventDefault();
  const form = event.target;
  if (await write('/posts', new URLSearchParams(new FormData(form)), 'posts')) form.reset();
});
list.addEventListener('click', event => {
  const id = event.target.closest('[data-like]')?.dataset.like;
  if (id) write(`/posts/${id}/like`, '', `post:${id}`);
});
