import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serve } from '@hono/node-server';
import { Hono } from 'hono';
import { makeBlobGrants } from '#local/blob-grants.ts';
import { blobServer } from '#local/blob-server.ts';
import { Database } from '#local/database/database.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { openKeyFile } from '#local/key-file.ts';
import { SqliteQueue } from '#local/sqlite-queue.ts';
import { SqliteTable } from '#local/sqlite-table.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { WorkflowInterpreter } from '#local/workflow-interpreter/interpreter.ts';
import type { JsonObject } from '#ports/table.ts';
import { blobsConformance } from './blobs.ts';
import { grantsConformance } from './grants.ts';
import { keysConformance } from './keys.ts';
import { manualClock } from './manual-clock.ts';
import { queueConformance } from './queue.ts';
import { tableConformance } from './table.ts';
import { workflowsConformance } from './workflows.ts';

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

keysConformance('KeyFile', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-keys-'));
  return {
    keys: await openKeyFile(join(folder, 'key'), systemRandom),
    others: await openKeyFile(join(folder, 'others'), systemRandom),
    dispose: () => rm(folder, { recursive: true }),
  };
});

grantsConformance('The embedded object server', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-grants-'));
  const blobs = await openFileBlobs(folder, settings);
  const clock = manualClock();
  const secret = systemRandom.bytes(32);
  const app = new Hono().route('/some/objects', blobServer({ blobs, secret, clock }));
  const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    grants: makeBlobGrants({ baseUrl: `http://127.0.0.1:${port}/some/objects`, secret, clock }),
    blobs,
    clock,
    async dispose() {
      await new Promise((resolve) => server.close(resolve));
      await blobs.close();
      await rm(folder, { recursive: true });
    },
  };
});

workflowsConformance('WorkflowInterpreter', async (machines, handler) => {
  const { database, dispose } = await openDatabase();
  const clock = manualClock();
  const workflows = new WorkflowInterpreter({
    database,
    clock,
    random: systemRandom,
    machines,
    handler: (resource, input, token) => handler(resource, input as JsonObject, token),
    concurrency: 10,
    onError: (error) => assert.fail(String(error)),
  });
  await workflows.resume();
  return {
    workflows,
    clock,
    async dispose() {
      await workflows.close();
      await dispose();
    },
  };
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
