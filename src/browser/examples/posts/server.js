// Posts, in Node and SQLite, whose readers see what others write: node server.js. README.md says how it works.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, request as send } from 'node:http';
import { fileURLToPath } from 'node:url';

import { publisher, ticket } from '../../server.js';

const { DatabaseSync } = await import('node:sqlite').catch(() => fail(
  `this needs node:sqlite, which Node has from 22.13 on; this is ${process.version} (${process.execPath})`));

const ORG = 'acme', USERS = ['Anna', 'Ben'], TEXT_MAX = 280, BODY_MAX = 8192;
const secret = randomBytes(32).toString('hex'), publishKey = randomBytes(32).toString('hex');

function fail(why) {
  console.error(why);
  process.exit(1);
}

// ---- nudged: $NUDGED, or what cargo builds; started again if it ends ----

let nudged, publish, port = 0, isOver = false;

const started = () => new Promise(resolve => {
  const manifest = fileURLToPath(new URL('../../../../Cargo.toml', import.meta.url));
  const build = ['cargo', 'run', '--release', '--manifest-path', manifest, '--'];
  const [program, ...args] = process.env.NUDGED ? [process.env.NUDGED] : build;
  const flags = ['--listen', `127.0.0.1:${port}`, '--drain-window', '0s'];
  // What is in arguments, every user of the machine can read.
  const env = { ...process.env, NUDGED_JWT_SECRET: secret, NUDGED_PUBLISH_KEY: publishKey };
  delete env.NUDGED;
  nudged = spawn(program, [...args, ...flags], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  nudged.once('error', ({ message }) => fail(`${program} does not start (${message}). Install Rust, from https://rustup.rs, ` +
    'or name a program that is built: NUDGED=/path/to/nudged node server.js'));
  let printed = '';
  nudged.stdout.setEncoding('utf8').on('data', text => {
    printed = (printed + text).slice(-1000);
    port ||= +/listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(printed)?.[1] || 0;
    if (port) resolve();
  });
  nudged.once('exit', (code, signal) => {
    if (isOver) process.exit();
    if (!port) fail(`nudged has ended at its start (${code ?? signal})`);
    console.log('nudged has ended, and is started again');
    setTimeout(started, 500);
  });
});

const end = async () => {
  isOver = true;
  await publish?.close(1000);
  if (nudged.exitCode !== null || nudged.signalCode) process.exit();
  nudged.kill();
};
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, end);
process.on('exit', () => nudged?.kill());
console.log(process.env.NUDGED ? 'starting nudged' : 'starting nudged, which cargo builds first; that takes some minutes');
await started();
publish = publisher({ url: `http://127.0.0.1:${port}`, token: publishKey });

// Where the stream is: null if nudged is away, and then the page reads everything once it is back.
const position = async () => {
  try {
    const headers = { authorization: `Bearer ${publishKey}` }, signal = AbortSignal.timeout(1000);
    const response = await fetch(`http://127.0.0.1:${port}/api/${ORG}/position`, { headers, signal });
    return (await response.json()).member.id;
  } catch {
    return null;
  }
};
// What nginx would do: streams and scripts of nudged, at the page's own origin. Fields about a connection, and what is
// for the backend, stay here.
const PASSED = ['accept', 'authorization', 'if-none-match', 'last-event-id'];
const forward = ({ url: path, headers: fields }, response) => {
  const headers = Object.fromEntries(PASSED.filter(name => name in fields).map(name => [name, fields[name]]));
  const upstream = send({ host: '127.0.0.1', port, path, headers }, answer => {
    for (const name of ['connection', 'keep-alive', 'transfer-encoding']) delete answer.headers[name];
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
    answer.on('error', () => response.destroy());
  });
  upstream.on('error', () => response.headersSent ? response.destroy() : response.writeHead(502).end());
  response.on('close', () => upstream.destroy());
  upstream.end();
};

// ---- the database ----

const db = new DatabaseSync(process.env.POSTS_DATABASE || ':memory:');
db.exec(`
  CREATE TABLE IF NOT EXISTS posts (id INTEGER PRIMARY KEY, author TEXT NOT NULL, text TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS likes (post INTEGER NOT NULL, user TEXT NOT NULL, PRIMARY KEY (post, user));
  INSERT INTO posts SELECT 1, 'Ben', 'Welcome! Open a second window.' WHERE NOT EXISTS (SELECT * FROM posts);
`);
const SELECT = `SELECT *, (SELECT count(*) FROM likes WHERE post = id) AS likes,
  (SELECT count(*) FROM likes WHERE post = id AND user = ?) AS liked FROM posts`;
const list = db.prepare(`${SELECT} ORDER BY id DESC LIMIT 50`);
const one = db.prepare(`${SELECT} WHERE id = ?`);
const insert = db.prepare('INSERT INTO posts (author, text) VALUES (?, ?)');
const like = db.prepare('INSERT INTO likes SELECT id, ? FROM posts WHERE id = ? ON CONFLICT DO NOTHING');
const unlike = db.prepare('DELETE FROM likes WHERE user = ? AND post = ?');

// ---- what is shown: every value is escaped, unless it is html itself ----

class Html extends String {}
const escape = value => `${value}`.replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`);
const part = value => Array.isArray(value) ? value.map(part).join('') : value instanceof Html ? value : escape(value);
const html = (parts, ...values) => new Html(String.raw({ raw: parts }, ...values.map(part)));

const post = ({ id, author, text, likes, liked }) => html`<li id="post-${id}">
  <b>${author}</b> <span>${text}</span>
  <button data-like="${id}" id="like-${id}" aria-pressed="${liked ? 'true' : 'false'}">♥ ${likes}</button></li>
`;
const page = (user, since) => html`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Posts</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/page.css"><script type="module" src="/page.js"></script>
<body data-nudged="${since ?? ''}">
<header><h1>Posts</h1><form method="post" action="/user">You are <b>${user}</b>
  ${USERS.filter(name => name !== user).map(name => html`<button name="user" value="${name}">be ${name}</button>`)}</form></header>
<form id="new"><input name="text" required maxlength="${TEXT_MAX}" autocomplete="off" placeholder="Write a post"
  aria-label="Write a post"><button>Post</button></form>
<ul id="posts">${list.all(user).map(post)}</ul>
<footer><span id="status">connecting</span><ol id="log"></ol></footer>
`;

// ---- the routes ----

const file = (name, type) => [readFileSync(new URL(name, import.meta.url)), type];
const files = { '/page.js': file('page.js', 'text/javascript'), '/page.css': file('page.css', 'text/css') };
const HEADERS = {
  'cache-control': 'no-store', 'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
};
const form = async request => {
  let body = '';
  for await (const part of request.setEncoding('utf8')) if ((body += part).length > BODY_MAX) throw new RangeError('too large');
  return new URLSearchParams(body);
};

// A status, a body, more fields.
const answer = async request => {
  const [pathname] = request.url.split('?'), { method, headers } = request;
  const named = /(?:^|; )user=(\w+)/.exec(headers.cookie)?.[1], user = USERS.includes(named) ? named : undefined;
  const id = +/^\/posts\/(\d{1,15})(?:\/like)?$/.exec(pathname)?.[1];
  const becomes = name => ({ 'set-cookie': `user=${name}; Path=/; HttpOnly; SameSite=Lax` });
  if (method === 'GET') {
    if (files[pathname]) return [200, files[pathname][0], { 'content-type': files[pathname][1] }];
    if (pathname === '/') {
      const since = await position(); // before the database is read
      return [200, page(user ?? USERS[0], since), user ? {} : becomes(USERS[0])];
    }
    if (pathname === '/ticket' && user) return [200, ticket(secret, ORG), { 'content-type': 'text/plain' }];
    if (pathname === '/ticket') return [401, 'no user'];
    if (pathname === '/posts') return [200, html`${list.all(user ?? '').map(post)}`];
    if (id && one.get(user ?? '', id)) return [200, post(one.get(user ?? '', id))];
  } else if (method === 'POST') {
    if (!['same-origin', undefined].includes(headers['sec-fetch-site'])) return [403, 'not from another page'];
    const fields = await form(request), words = fields.get('text')?.trim(), name = fields.get('user');
    if (pathname === '/user' && USERS.includes(name)) return [303, '', { location: '/', ...becomes(name) }];
    if (!user) return [401, 'no user'];
    if (pathname === '/posts' && words && words.length <= TEXT_MAX) {
      insert.run(user, words); // committed when it returns, and so
      publish.enqueue(ORG, 'posts');
      return [204];
    }
    if (id && pathname.endsWith('/like') && one.get(user, id)) {
      if (!unlike.run(user, id).changes) like.run(user, id);
      publish.enqueue(ORG, `post:${id}`);
      return [204];
    }
  }
  return [404, 'not here'];
};

const server = createServer(async (request, response) => {
  if (request.method === 'GET' && /^\/(api\/|nudged)/.test(request.url)) return forward(request, response);
  const [status, body, more] = await answer(request).catch(({ name, message }) => [name === 'RangeError' ? 413 : 500, message]);
  response.writeHead(status, { 'content-type': 'text/html; charset=utf-8', ...HEADERS, ...more });
  response.end(body instanceof Html ? `${body}` : body instanceof Uint8Array ? body : body && escape(body));
});
server.once('error', ({ message }) => fail(`${message}; PORT=3001 node server.js takes another port`));
server.listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  console.log(`open http://127.0.0.1:${server.address().port}/ in two windows; Ctrl-C ends it`);
});
