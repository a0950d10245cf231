import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Database } from '#local/database/database.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { SqliteQueue } from '#local/sqlite-queue.ts';
import { SqliteTable } from '#local/sqlite-table.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { blobsConformance } from './blobs.ts';
import { manualClock } from './manual-clock.ts';
import { queueConformance } from './queue.ts';
import { tableConformance } from './table.ts';

const settings = { clock: systemClock, random: systemRandom };

blobsConformance('FileBlobs', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-blobs-'));
  const blobs = await openFileBlobs(join(folder, 'new', 'store'), settings);
  return {
    blobs,
    async dispose() {
      await blobs.close();
      await rm(folder, { recursive: true });
    },
  };
});

tableConformance('SqliteTable', async () => {
  const { database, dispose } = await openDatabase();
  const clock = manualClock();
  return { table: new SqliteTable(database, clock), clock, dispose };
});

queueConformance('SqliteQueue', async () => {
  const { database, dispose } = await openDatabase();
  const clock = manualClock();
  return { queue: new SqliteQueue(database, clock, systemRandom), clock, dispose };
});

async function openDatabase() {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-database-'));
  const database = new Database(join(folder, 'control.sqlite'));
  return {
    database,
    async dispose() {
      database.close();
      await rm(folder, { recursive: true });
    },
  };
}
