import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freshIds } from '#app/context.ts';
import { settleJob } from '#app/job-steps.ts';
import { listPoints } from '#app/restores.ts';
import { createRun } from '#app/runs.ts';
import { TableVaultState } from '#app/table-vault-state.ts';
import { type ErrorCode, isHoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type { Table } from '#ports/table.ts';
import { type Plane, startPlane } from './plane.ts';
import { makeCommit } from './point.ts';

const fails = (code: ErrorCode) => (error: unknown) => isHoldfastError(error, code) || assert.fail(String(error));

/** A machine with a backup job under way, and the vault's state in its name. */
async function startBackup(plane: Plane, machine?: Id<'machine'>) {
  const { services, context, tenant } = plane;
  const { proxy } = await plane.enrol();
  const chosen = machine ?? (await plane.addMachine(proxy));
  const run = await createRun(services, context, freshIds(services.clock, services.random), { machines: [chosen] });
  const job = run.jobs[0]!.id;
  return { machine: chosen, job, state: new TableVaultState(services, { ...context, vault: tenant.vault, job }) };
}

const points = async (plane: Plane) =>
  (await listPoints(plane.services, plane.context, { limit: 10 })).items.map(({ id }) => id);

test('a commit makes the point exist, its object too, and its segments join the generation', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const { machine, state } = await startBackup(plane);
  const session = await state.openSession(machine, 'x');
  const commit = await makeCommit(plane, machine, 'mail');
  assert.deepEqual(await points(plane), []);
  await state.commit(session, commit);
  assert.deepEqual(await points(plane), [commit.id]);
  const stored = await plane.services.blobs.get(`v1/${plane.tenant.vault}/${commit.pointKey}`);
  assert.ok(stored && commit.point.equals(stored.content));
  assert.deepEqual(await state.generation(), { number: 1, segments: commit.segments });
  // The answer was lost and it is asked again: the same, and no second time.
  await state.commit(session, commit);
  assert.equal((await state.generation()).number, 1);
});

test('one job makes one point: a second commit or session of it is fenced', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const { machine, state } = await startBackup(plane);
  const session = await state.openSession(machine, 'x');
  await state.commit(session, await makeCommit(plane, machine, 'mail'));
  await assert.rejects(state.commit(session, await makeCommit(plane, machine, 'mail')), fails('fenced'));
  await assert.rejects(state.openSession(machine, 'x'), fails('fenced'));
  assert.equal((await points(plane)).length, 1);
});

test('a later session of the job ends the earlier one, whose holder can no longer commit', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const { machine, state } = await startBackup(plane);
  const zombie = await state.openSession(machine, 'x');
  const alive = await state.openSession(machine, 'x');
  assert.ok(alive.token > zombie.token);
  await assert.rejects(state.commit(zombie, await makeCommit(plane, machine, 'mail')), fails('fenced'));
  await assert.rejects(state.renew(zombie), fails('fenced'));
  await state.renew(alive);
  await state.commit(alive, await makeCommit(plane, machine, 'mail'));
});

test('a session with the wrong fencing token, or from before the collector’s bound, commits nothing', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const { machine, state } = await startBackup(plane);
  const session = await state.openSession(machine, 'x');
  const commit = await makeCommit(plane, machine, 'mail');
  await assert.rejects(state.commit({ ...session, token: session.token - 1 }, commit), fails('fenced'));
  const key = { partition: `${plane.tenant.id}#vault-state`, sort: plane.tenant.vault };
  const bound = { epoch: 3, minCommitEpoch: 2, generation: { number: 0, segments: [] } };
  await plane.services.table.put(key, bound);
  await assert.rejects(state.commit(session, commit), fails('fenced'));
  assert.deepEqual(await points(plane), []);
  const later = await state.openSession(machine, 'x');
  assert.equal(later.startEpoch, 3);
  await state.commit(later, commit);
});

test('a job that has ended can no longer commit, and a machine is free for the next job', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const { machine, job, state } = await startBackup(plane);
  const session = await state.openSession(machine, 'x');
  await settleJob(plane.services, { ...plane.context, job }, { Error: 'States.HeartbeatTimeout', Cause: '' });
  await assert.rejects(state.commit(session, await makeCommit(plane, machine, 'mail')), fails('fenced'));
  assert.deepEqual(await points(plane), []);
  const second = await startBackup(plane, machine);
  assert.notEqual(second.job, job);
  await second.state.openSession(machine, 'y');
});

test('while another job’s lease runs the machine is busy, and after it the machine is free', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const { machine, state } = await startBackup(plane);
  await state.openSession(machine, 'x');
  const { job } = await startBackup(plane);
  const other = new TableVaultState(plane.services, { ...plane.context, vault: plane.tenant.vault, job });
  await assert.rejects(other.openSession(machine, 'y'), fails('busy'));
  plane.clock.advance(plane.services.settings.sessionLeaseSeconds * 1000 + 1);
  await other.openSession(machine, 'y');
});

test('commits of many machines at once all count, none loses another’s segments', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const { proxy } = await plane.enrol();
  const backups = await Promise.all(
    Array.from({ length: 6 }, async (_, i) => startBackup(plane, await plane.addMachine(proxy, `m${i}`))),
  );
  const commits = await Promise.all(
    backups.map(async ({ machine, state }) => {
      const session = await state.openSession(machine, 'x');
      const commit = await makeCommit(plane, machine, 'm');
      await state.commit(session, commit);
      return commit;
    }),
  );
  const generation = await backups[0]!.state.generation();
  assert.equal(generation.number, 6);
  assert.deepEqual(
    new Set(generation.segments.map(({ key }) => key)),
    new Set(commits.map(({ segments }) => segments[0]!.key)),
  );
  assert.equal((await points(plane)).length, 6);
});

test('a crash between the point’s object and the transaction leaves no point; the retry makes it', async () => {
  let broken = false;
  const failing = (table: Table): Table => ({
    get: (key) => table.get(key),
    put: (...of) => table.put(...of),
    delete: (...of) => table.delete(...of),
    query: (...of) => table.query(...of),
    transact: async (actions) => {
      if (broken && actions.length > 3) throw new Error('the process died');
      return table.transact(actions);
    },
  });
  await using plane = await startPlane({ startWorkflows: false, table: failing });
  const { machine, state } = await startBackup(plane);
  const session = await state.openSession(machine, 'x');
  const commit = await makeCommit(plane, machine, 'mail');
  broken = true;
  await assert.rejects(state.commit(session, commit), /died/);
  assert.deepEqual(await points(plane), []);
  broken = false;
  await state.commit(session, commit);
  assert.deepEqual(await points(plane), [commit.id]);
});

test('a point of another machine, an unsigned one, and one with a segment that is not there are refused', async () => {
  await using plane = await startPlane({ startWorkflows: false });
  const { machine, state } = await startBackup(plane);
  const { proxy } = await plane.enrol();
  const other = await plane.addMachine(proxy, 'other');
  const session = await state.openSession(machine, 'x');
  const good = await makeCommit(plane, machine, 'mail');
  await assert.rejects(state.commit(session, await makeCommit(plane, other, 'other')), fails('protocol'));
  await assert.rejects(state.commit(session, { ...good, pointKey: `points/${machine}/elsewhere` }), fails('protocol'));
  const forged = Buffer.from(good.point);
  forged[20]! ^= 1;
  await assert.rejects(state.commit(session, { ...good, point: forged }), fails('damaged'));
  const missing = [{ key: 'index/0000000001/none', sizeBytes: 5 }];
  await assert.rejects(state.commit(session, { ...good, segments: missing }), fails('missing'));
  await assert.rejects(
    state.commit(session, { ...good, segments: [{ ...good.segments[0]!, sizeBytes: 6 }] }),
    fails('missing'),
  );
  const unsent = await makeCommit(plane, machine, 'mail');
  await plane.services.blobs.delete(unsent.pack);
  await assert.rejects(state.commit(session, unsent), fails('missing'), 'a pack that never arrived');
  assert.deepEqual(await points(plane), []);
  await state.commit(session, good);
});
