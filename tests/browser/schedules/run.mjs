// node run.mjs CLIENT FIRST COUNT: runs the schedules of so many seeds; shrinks the first that fails, and exits with 1.
// node run.mjs CLIENT '{"seed":…,"steps":…,"variant":…}' runs that one, and prints all that happens.

import { readFileSync } from 'node:fs';
import { moduleOf } from './page.mjs';
import { run, stepsOf } from './schedule.mjs';

const SHRINK_MS = 20_000, VARIANTS = 5;

const [client, what, count = '1'] = process.argv.slice(2);
const module = moduleOf(readFileSync(client, 'utf8'));
let failed;
process.on('unhandledRejection', error => { failed = error; });

async function violations(schedule) {
  failed = undefined;
  const found = await run(module, schedule);
  return failed ? [...found, `a rejection that is not handled: ${failed.stack}`] : found;
}

// Fewer steps, as long as the same goes wrong in a variant of that world.
async function shrink(schedule, violation) {
  const end = performance.now() + SHRINK_MS;
  for (let size = schedule.steps.length >> 1; size; size >>= 1) {
    for (let i = 0; i < schedule.steps.length; ) {
      const fewer = await find({ ...schedule, steps: schedule.steps.toSpliced(i, size) });
      if (fewer) schedule = fewer;
      else i += size;
    }
  }
  return schedule;

  async function find(schedule) {
    for (let variant = 0; variant < VARIANTS && performance.now() < end; variant++) {
      const tried = { ...schedule, variant };
      if ((await violations(tried)).includes(violation)) return tried;
    }
  }
}

if (what.startsWith('{')) {
  process.env.TRACE = '1';
  console.log((await violations(JSON.parse(what))).join('\n'));
  process.exit();
}
for (let seed = +what; seed < +what + +count; seed++) {
  const schedule = { seed, steps: stepsOf(seed) };
  const found = await violations(schedule);
  if (!found.length) continue;
  console.log(`Seed ${seed}:\n  ${found.join('\n  ')}`);
  console.log(`The first of these needs only\n'${JSON.stringify(await shrink(schedule, found[0]))}'`);
  process.exit(1);
}
console.log(`${count} schedules`);
