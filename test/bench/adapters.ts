/** What the embedded adapters do a second on this machine: `node test/bench/adapters.ts [folder]`. */

import { createHash, randomFillSync } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Database } from '#local/database/database.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { SqliteQueue } from '#local/sqlite-queue.ts';
import { SqliteTable } from '#local/sqlite-table.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { WorkflowInterpreter } from '#local/workflow-interpreter/interpreter.ts';
import { machineSchema } from '#workflows/asl.ts';

const ROUNDS = 5;
const folder = await mkdtemp(join(process.argv[2] ?? tmpdir(), 'holdfast-bench-'));

type Contestant = readonly [name: string, unit: string, work: (round: number) => Promise<number>];

/** Runs something a few times and prints the median rate with the least and the greatest. */
async function measure(...contestant: Contestant): Promise<void> {
  await compare([contestant]);
}

/** The same for several things in turns, so that what else the machine does meets all of them alike. */
async function compare(contestants: readonly Contestant[]): Promise<void> {
  const rates = contestants.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [index, [, , work]] of contestants.entries()) {
      const start = systemClock.monotonicMs();
      const amount = await work(round);
      rates[index]!.push(amount / ((systemClock.monotonicMs() - start) / 1000));
    }
  }
  for (const [index, [name, unit]] of contestants.entries()) {
    const sorted = rates[index]!.sort((a, b) => a - b).map((rate) => Math.round(rate));
    console.log(`${name.padEnd(72)} ${sorted[ROUNDS >> 1]} ${unit}  (${sorted[0]}–${sorted.at(-1)})`);
  }
}

try {
  const database = new Database(join(folder, 'db'));
  const table = new SqliteTable(database, systemClock);
  const value = { text: 'x'.repeat(200), n: 1 };
  await measure('table: puts one at a time', 'commits/s', async (round) => {
    for (let i = 0; i < 500; i++) await table.put({ partition: `one-${round}`, sort: `${i}` }, value);
    return 500;
  });
  await measure('table: puts, 1,000 asked for at once', 'puts/s', async (round) => {
    for (let batch = 0; batch < 20; batch++) {
      const keys = Array.from({ length: 1000 }, (_, i) => ({ partition: `many-${round}`, sort: `${batch}-${i}` }));
      await Promise.all(keys.map((key) => table.put(key, value)));
    }
    return 20_000;
  });
  await measure('table: gets', 'gets/s', async () => {
    for (let i = 0; i < 20_000; i++) await table.get({ partition: 'many-0', sort: `3-${i % 1000}` });
    return 20_000;
  });

  const queue = new SqliteQueue(database, systemClock, systemRandom);
  await measure('queue: send, receive and ack one at a time', 'messages/s', async () => {
    for (let i = 0; i < 200; i++) {
      await queue.send('bench', 'message');
      const [message] = await queue.receive('bench', { visibilitySeconds: 30 });
      await queue.ack('bench', message!.receipt);
    }
    return 200;
  });

  const ring = machineSchema.parse({
    StartAt: 'A',
    States: {
      A: { Type: 'Task', Resource: 'a', Next: 'B' },
      B: { Type: 'Task', Resource: 'b', Next: 'C' },
      C: { Type: 'Task', Resource: 'c', End: true },
    },
  });
  const workflows = new WorkflowInterpreter({
    database,
    clock: systemClock,
    random: systemRandom,
    machines: { ring },
    handler: async (_, input) => input,
  });
  await workflows.resume();
  await measure('workflows: executions of 3 tasks, 200 at once', 'executions/s', async (round) => {
    const names = Array.from({ length: 200 }, (_, i) => `bench-${round}-${i}`);
    await Promise.all(names.map((name) => workflows.start('ring', name, {})));
    for (const name of names) {
      while ((await workflows.describe(name))?.status === 'running') await systemClock.sleep(1);
    }
    return 200;
  });
  await workflows.close();
  database.close();

  const PACK_BYTES = 32 * 1024 * 1024;
  const PACKS = 16;
  const pool = randomFillSync(Buffer.alloc(PACK_BYTES));
  const sha256 = createHash('sha256').update(pool).digest();
  const size = Math.ceil(PACK_BYTES / 1000);
  const parts = Array.from({ length: 1000 }, (_, i) => pool.subarray(i * size, (i + 1) * size));
  const blobs = await openFileBlobs(join(folder, 'blobs'), { clock: systemClock, random: systemRandom });
  const megabytes = (PACKS * PACK_BYTES) / 1e6;
  const put = async (key: string, options: { sha256?: Uint8Array }) => {
    await blobs.putIfAbsent(key, parts, options);
    await blobs.delete(key);
  };
  const each = async (work: (pack: number) => Promise<void>) => {
    for (let pack = 0; pack < PACKS; pack++) await work(pack);
    return megabytes;
  };
  await compare([
    ['blobs: put 32 MiB packs of 1,000 parts, one at a time', 'MB/s', () => each((pack) => put(`a/${pack}`, {}))],
    ['the same, SHA-256 checked', 'MB/s', () => each((pack) => put(`b/${pack}`, { sha256 }))],
    [
      'the same, 3 at once',
      'MB/s',
      async () => {
        let next = 0;
        const some = async () => {
          while (next < PACKS) await put(`c/${next++}`, {});
        };
        await Promise.all([some(), some(), some()]);
        return megabytes;
      },
    ],
    [
      'floor: the same bytes to a plain file with fdatasync',
      'MB/s',
      () =>
        each(async () => {
          const path = join(folder, 'plain');
          const file = await open(path, 'w');
          await file.write(pool);
          await file.datasync();
          await file.close();
          await rm(path);
        }),
    ],
  ]);
  await blobs.putIfAbsent('ranges', parts);
  await measure('blobs: getRange of 1 MiB', 'MB/s', async () => {
    for (let i = 0; i < 512; i++) await blobs.getRange('ranges', (i % 31) * 1024 * 1024, 1024 * 1024);
    return (512 * 1024 * 1024) / 1e6;
  });
  await blobs.close();
} finally {
  await rm(folder, { recursive: true });
}
