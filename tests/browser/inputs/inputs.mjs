// Runs one of these tests, which the first argument names; without one, prints their names.

import assert from 'node:assert/strict';
import * as answers from './answers.mjs';
import * as options from './options.mjs';
import * as surroundings from './surroundings.mjs';
import * as tickets from './tickets.mjs';
import { problems } from '../node/page.mjs';

const tests = { ...options, ...tickets, ...answers, ...surroundings };
const [, , name] = process.argv;
if (!name) {
  console.log(Object.keys(tests).join('\n'));
  process.exit();
}
try {
  await tests[name]();
  assert.deepEqual(problems, [], 'nothing else is reported as an error of the page');
} catch (error) {
  console.error(error);
  process.exit(1);
}
process.exit();
