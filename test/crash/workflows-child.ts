/** A process that runs workflows from the given database, telling each task before it is begun. */

import { appendFileSync, writeSync } from 'node:fs';
import { Database } from '#local/database/database.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { WorkflowInterpreter } from '#local/workflow-interpreter/interpreter.ts';
import type { JsonObject } from '#ports/table.ts';
import { EXECUTIONS, journey, TASK_MS } from './workflows-machine.ts';

const [path = '', log = '', mode = ''] = process.argv.slice(2);
using database = new Database(path);
await using workflows = new WorkflowInterpreter({
  database,
  clock: systemClock,
  random: systemRandom,
  machines: { journey },
  concurrency: EXECUTIONS * 3,
  async handler(resource, input, token) {
    const { who, n, key } = input as { who: string; n: number; key: string };
    // One short append is written whole, or not at all.
    appendFileSync(log, `${who} ${key}\n`);
    await systemClock.sleep(TASK_MS);
    if (token !== undefined) {
      setTimeout(() => {
        // Refused if a run before a crash had handed the same token to somebody faster.
        workflows.complete(token, { n: n + 1 }).catch(() => {});
      }, TASK_MS);
    }
    if (resource === 'fail' && who.endsWith('3')) throw Object.assign(new Error('as it must'), { name: 'AsItMust' });
    return { n: n + 1 } satisfies JsonObject;
  },
});
await workflows.resume();
writeSync(1, 'ready\n');
const names = Array.from({ length: EXECUTIONS }, (_, i) => `journey-${i}`);
for (const who of names) await workflows.start('journey', who, { who, at: { n: 0 } });

const isRunning = async () =>
  (await Promise.all(names.map((name) => workflows.describe(name)))).some((state) => state?.status === 'running');
while (mode === 'forever' || (await isRunning())) await systemClock.sleep(50);
