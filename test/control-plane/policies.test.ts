import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freshIds } from '#app/context.ts';
import { listJobs } from '#app/jobs.ts';
import { addPolicy, removePolicy } from '#app/policies.ts';
import { OPEN_RUNS } from '#app/runs.ts';
import { stores } from '#app/stores.ts';
import { tick } from '#app/sweep.ts';
import type { Table } from '#ports/table.ts';
import { type Plane, startPlane } from './plane.ts';

const never = new AbortController().signal;
const hourly = { kind: 'interval', minutes: 60 } as const;
const HOUR = 3_600_000;

async function addHourly(plane: Plane) {
  const { proxy } = await plane.enrol();
  const machines = [await plane.addMachine(proxy)];
  const ids = freshIds(plane.clock, plane.services.random);
  return addPolicy(plane.services, plane.context, ids, { name: 'hourly', schedule: hourly, machines, enabled: true });
}

const runs = async (plane: Plane) => (await stores(plane.services.table).runs.list(plane.context, { limit: 50 })).items;
const jobs = async (plane: Plane) => (await listJobs(plane.services, plane.context, { limit: 50 })).items;

test('a policy that is due starts one run, however many ticks look at once, and moves on', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const policy = await addHourly(plane);
  await tick(plane.services, never);
  assert.deepEqual(await runs(plane), []);
  plane.clock.advance(HOUR);
  await Promise.all([tick(plane.services, never), tick(plane.services, never), tick(plane.services, never)]);
  const [run, ...more] = await runs(plane);
  assert.deepEqual(more, []);
  assert.ok(run?.policy === policy.id && run.trigger === 'schedule' && run.dueAt === policy.nextRunAt);
  assert.equal((await jobs(plane)).length, 1);
  await tick(plane.services, never);
  assert.equal((await runs(plane)).length, 1);
});

test('after a long stop a policy runs once, not once for each time it missed', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const policy = await addHourly(plane);
  plane.clock.advance(50 * HOUR + 1);
  await tick(plane.services, never);
  await tick(plane.services, never);
  assert.equal((await runs(plane)).length, 1);
  const { value } = await stores(plane.services.table).policies.get(plane.context, policy.id);
  assert.equal(Date.parse(value.nextRunAt!) - plane.clock.nowMs(), HOUR - 1);
});

test('a due run that finds its machine still at work is recorded as skipped', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  await addHourly(plane);
  for (let i = 0; i < 2; i++) {
    plane.clock.advance(HOUR);
    await tick(plane.services, never);
  }
  assert.deepEqual((await jobs(plane)).map(({ state }) => state.status).sort(), ['skipped', 'waiting']);
});

test('a removed policy does not run any more', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const policy = await addHourly(plane);
  await removePolicy(plane.services, plane.context, policy.id);
  plane.clock.advance(2 * HOUR);
  await tick(plane.services, never);
  assert.deepEqual(await runs(plane), []);
});

test('killed at any write between due and started, the next ticks complete the run: once, no job lost or doubled', async () => {
  for (let writes = 0; writes < 12; writes++) {
    let left = Number.POSITIVE_INFINITY;
    const dying = (table: Table): Table => {
      const counted = async <T>(write: () => Promise<T>) => {
        if (left-- <= 0) throw new Error('killed');
        return write();
      };
      return {
        get: (key) => table.get(key),
        query: (...of) => table.query(...of),
        put: (...of) => counted(() => table.put(...of)),
        delete: (...of) => counted(() => table.delete(...of)),
        transact: (...of) => counted(() => table.transact(...of)),
      };
    };
    await using plane = await startPlane({ table: dying, startWorkflows: false });
    await addHourly(plane);
    plane.clock.advance(HOUR);
    left = writes;
    const wasKilled = await tick(plane.services, never).then(
      () => false,
      () => true,
    );
    left = Number.POSITIVE_INFINITY;
    await tick(plane.services, never);
    assert.equal((await runs(plane)).length, 1, `killed after ${writes} writes`);
    const made = await jobs(plane);
    assert.deepEqual(
      made.map(({ state }) => state.status),
      ['waiting'],
    );
    assert.equal((await plane.services.workflows.describe(made[0]!.id))?.status, 'running');
    assert.deepEqual((await plane.services.table.query(OPEN_RUNS)).items, [], 'nothing is left to complete');
    if (!wasKilled) return;
  }
  assert.fail('never ran to its end');
});
