import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { freshIds } from '#app/context.ts';
import { cancelJob, getJob } from '#app/jobs.ts';
import { ackTask, completeTask, failTask, heartbeatTask, receiveTasks } from '#app/proxy-tasks.ts';
import type { ProxyContext } from '#app/proxy-tokens.ts';
import { listPoints } from '#app/restores.ts';
import { createRun } from '#app/runs.ts';
import { tick } from '#app/sweep.ts';
import { TableVaultState } from '#app/table-vault-state.ts';
import { isHoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type { Task } from '#contract/proxy-protocol.ts';
import { isFinal } from '#domain/job.ts';
import { type Plane, startPlane } from './plane.ts';
import { makeCommit } from './point.ts';

const settings = {
  heartbeatSeconds: 30,
  silenceRetries: 2,
  taskVisibilitySeconds: 10,
  slotWaitSeconds: 1,
  slotWaitMaxSeconds: 2,
  proxySlots: 2,
};
const never = new AbortController().signal;

async function runNow(plane: Plane, machine: Id<'machine'>): Promise<Id<'job'>> {
  const ids = freshIds(plane.clock, plane.services.random);
  return (await createRun(plane.services, plane.context, ids, { machines: [machine] })).jobs[0]!.id;
}

const statusOf = async (plane: Plane, job: Id<'job'>) =>
  (await getJob(plane.services, plane.context, job)).state.status;
const ended = (plane: Plane, job: Id<'job'>, stepMs = 0) =>
  plane.until(`${job} ends`, async () => isFinal((await getJob(plane.services, plane.context, job)).state), stepMs);

async function receive(plane: Plane, proxy: ProxyContext, restarted = false): Promise<Task | undefined> {
  const request = { waitSeconds: 0, max: 1, restarted };
  return (await receiveTasks(plane.services, proxy, request, never))[0];
}

async function receiveSoon(plane: Plane, proxy: ProxyContext): Promise<Task> {
  let task: Task | undefined;
  await plane.until('a task arrives', async () => (task = await receive(plane, proxy)) !== undefined);
  return task!;
}

async function commit(plane: Plane, task: Task): Promise<Id<'point'>> {
  const state = new TableVaultState(plane.services, { ...plane.context, vault: task.vault, job: task.job });
  const session = await state.openSession(task.machine.id, 'x');
  const made = await makeCommit(plane, task.machine.id, 'mail');
  await state.commit(session, made);
  return made.id;
}

const outcomeOf = (point: Id<'point'>) => ({ kind: 'backup' as const, point, disks: [], stats: {} });

test('a backup goes from waiting to done, and its reports may come twice', async () => {
  await using plane = await startPlane({ settings });
  const proxy = await plane.enrol();
  const job = await runNow(plane, await plane.addMachine(proxy.proxy));
  const task = await receiveSoon(plane, proxy);
  assert.equal(task.job, job);
  assert.deepEqual(await heartbeatTask(plane.services, proxy, job, undefined), { cancel: false });
  assert.equal(await statusOf(plane, job), 'running');
  const point = await commit(plane, task);
  await completeTask(plane.services, proxy, job, outcomeOf(point));
  await completeTask(plane.services, proxy, job, outcomeOf(point));
  await ended(plane, job);
  await completeTask(plane.services, proxy, job, outcomeOf(point));
  await ackTask(plane.services, proxy, task.receipt);
  const { state } = await getJob(plane.services, plane.context, job);
  assert.ok(state.status === 'succeeded' && state.outcome.point === point);
});

test('a proxy cannot claim a point that the vault has not committed in this job’s name', async () => {
  await using plane = await startPlane({ settings });
  const proxy = await plane.enrol();
  const job = await runNow(plane, await plane.addMachine(proxy.proxy));
  const task = await receiveSoon(plane, proxy);
  const made = await makeCommit(plane, task.machine.id, 'mail');
  await assert.rejects(completeTask(plane.services, proxy, job, outcomeOf(made.id)), (error) =>
    isHoldfastError(error, 'protocol'),
  );
  assert.equal(await statusOf(plane, job), 'dispatched');
});

test('a proxy that falls silent gets its job again, and after a bounded time the job fails once', async () => {
  await using plane = await startPlane({ settings });
  const proxy = await plane.enrol();
  const machine = await plane.addMachine(proxy.proxy);
  const job = await runNow(plane, machine);
  const first = await receiveSoon(plane, proxy);
  assert.equal(first.attempt, 1);
  const startMs = plane.clock.nowMs();
  let attempts = 1;
  await plane.until(
    'the job fails',
    async () => {
      const task = await receive(plane, proxy);
      attempts = Math.max(attempts, task?.attempt ?? 0);
      return isFinal((await getJob(plane.services, plane.context, job)).state);
    },
    5000,
  );
  const { state } = await getJob(plane.services, plane.context, job);
  assert.ok(state.status === 'failed' && state.error.code === 'timeout' && state.error.remedy);
  assert.equal(attempts, 3);
  assert.ok(plane.clock.nowMs() - startMs < 4 * 60_000);
  // The machine is free again, and its slot too.
  await runNow(plane, machine);
  assert.equal((await receiveSoon(plane, proxy)).attempt, 1);
});

test('a proxy that died after its commit has done its job: it is not run again', async () => {
  await using plane = await startPlane({ settings });
  const proxy = await plane.enrol();
  const job = await runNow(plane, await plane.addMachine(proxy.proxy));
  const point = await commit(plane, await receiveSoon(plane, proxy));
  assert.equal(await receive(plane, proxy, true), undefined, 'the restarted proxy finds nothing to do');
  await ended(plane, job);
  const { state } = await getJob(plane.services, plane.context, job);
  assert.ok(state.status === 'succeeded' && state.outcome.point === point);
});

test('a proxy that restarts gets its unfinished job at once, one that runs gets it again only after a while', async () => {
  await using plane = await startPlane({ settings });
  const proxy = await plane.enrol();
  const job = await runNow(plane, await plane.addMachine(proxy.proxy));
  await receiveSoon(plane, proxy);
  assert.equal(await receive(plane, proxy), undefined);
  assert.equal((await receive(plane, proxy, true))?.job, job);
  plane.clock.advance(settings.taskVisibilitySeconds * 1000 + 1);
  assert.equal((await receive(plane, proxy))?.job, job);
});

test('a passing failure is tried again with the same job, a lasting one ends it with its cause', async () => {
  await using plane = await startPlane({ settings });
  const proxy = await plane.enrol();
  const job = await runNow(plane, await plane.addMachine(proxy.proxy));
  const first = await receiveSoon(plane, proxy);
  await failTask(plane.services, proxy, job, { code: 'store-failed', message: 'the store was away', retryable: true });
  await ackTask(plane.services, proxy, first.receipt);
  await plane.until('it comes again', async () => ((await receive(plane, proxy))?.attempt ?? 0) === 2, 500);
  await failTask(plane.services, proxy, job, {
    code: 'unreadable',
    message: 'disk root cannot be read',
    remedy: 'Check it',
  });
  await ended(plane, job);
  const { state } = await getJob(plane.services, plane.context, job);
  assert.deepEqual(state.status === 'failed' && { ...state.error }, {
    code: 'unreadable',
    message: 'disk root cannot be read',
    remedy: 'Check it',
  });
});

test('a cancelled job stops at its next heartbeat; one that waits never begins', async () => {
  await using plane = await startPlane({ settings: { ...settings, proxySlots: 1 } });
  const proxy = await plane.enrol();
  const running = await runNow(plane, await plane.addMachine(proxy.proxy, 'a'));
  await receiveSoon(plane, proxy);
  const waiting = await runNow(plane, await plane.addMachine(proxy.proxy, 'b'));
  await plane.until('it is held back', async () => {
    const { state } = await getJob(plane.services, plane.context, waiting);
    return state.status === 'waiting' && state.why !== undefined;
  });
  const cancelledMs = plane.clock.nowMs();
  await cancelJob(plane.services, plane.context, waiting);
  await ended(plane, waiting, 500);
  assert.ok(plane.clock.nowMs() - cancelledMs < 10_000, 'it need not wait for a slot to end');
  await cancelJob(plane.services, plane.context, running);
  assert.deepEqual(await heartbeatTask(plane.services, proxy, running, undefined), { cancel: true });
  await failTask(plane.services, proxy, running, { code: 'cancelled', message: 'The job was cancelled' });
  await ended(plane, running);
  assert.equal(await statusOf(plane, running), 'cancelled');
  assert.equal(await statusOf(plane, waiting), 'cancelled');
});

test('no more jobs than slots run on a proxy, and each waiting one gets its turn', async () => {
  await using plane = await startPlane({ settings });
  const proxy = await plane.enrol();
  const jobs: Id<'job'>[] = [];
  for (const name of ['a', 'b', 'c', 'd', 'e'])
    jobs.push(await runNow(plane, await plane.addMachine(proxy.proxy, name)));
  const done = new Set<string>();
  while (done.size < jobs.length) {
    const statuses = await Promise.all(jobs.map((job) => statusOf(plane, job)));
    const active = statuses.filter((status) => status === 'dispatched' || status === 'running');
    assert.ok(active.length <= settings.proxySlots, statuses.join(' '));
    const task = await receive(plane, proxy);
    if (task !== undefined && !done.has(task.job)) {
      await completeTask(plane.services, proxy, task.job, outcomeOf(await commit(plane, task)));
      await ended(plane, task.job);
      done.add(task.job);
    }
    plane.clock.advance(300);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  for (const job of jobs) assert.equal(await statusOf(plane, job), 'succeeded');
});

test('a second run on a machine that is being backed up is recorded as skipped, never stacked', async () => {
  await using plane = await startPlane({ settings });
  const proxy = await plane.enrol();
  const machine = await plane.addMachine(proxy.proxy);
  const first = await runNow(plane, machine);
  const second = await runNow(plane, machine);
  const { state } = await getJob(plane.services, plane.context, second);
  assert.ok(state.status === 'skipped' && state.why.includes(first));
});

test('whatever happens in whatever order, each job ends in exactly one state that never changes, and points match', async () => {
  const act = fc.constantFrom(
    'receive',
    'restart',
    'beat',
    'commit',
    'complete',
    'fail',
    'fail-retryable',
    'cancel',
    'silence',
    'tick',
  );
  await fc.assert(
    fc.asyncProperty(fc.array(act, { minLength: 1, maxLength: 14 }), async (acts) => {
      await using plane = await startPlane({ settings });
      const { services, context } = plane;
      const proxy = await plane.enrol();
      const job = await runNow(plane, await plane.addMachine(proxy.proxy));
      let task: Task | undefined = await receiveSoon(plane, proxy);
      let point: Id<'point'> | undefined;
      let final: string | undefined;
      const attempt = (call: () => Promise<unknown>) =>
        call().catch((error: unknown) => {
          if (!isHoldfastError(error) || error.code === 'internal') throw error;
        });
      for (const one of acts) {
        await attempt(async () => {
          if (one === 'receive') task = (await receive(plane, proxy)) ?? task;
          if (one === 'restart') task = (await receive(plane, proxy, true)) ?? task;
          if (one === 'beat') await heartbeatTask(services, proxy, job, undefined);
          if (one === 'commit' && task) point = await commit(plane, task);
          if (one === 'complete' && point) await completeTask(services, proxy, job, outcomeOf(point));
          if (one === 'fail') await failTask(services, proxy, job, { code: 'unreadable', message: 'no' });
          if (one === 'fail-retryable')
            await failTask(services, proxy, job, { code: 'store-failed', message: 'no', retryable: true });
          if (one === 'cancel') await cancelJob(services, context, job);
          if (one === 'silence') plane.clock.advance(31_000);
          if (one === 'tick') await tick(services, never);
        });
        await new Promise((resolve) => setTimeout(resolve, 2));
        const { state } = await getJob(services, context, job);
        if (final !== undefined) assert.equal(JSON.stringify(state), final);
        if (isFinal(state)) final = JSON.stringify(state);
      }
      await ended(plane, job, 10_000);
      const { state } = await getJob(services, context, job);
      if (final !== undefined) assert.equal(JSON.stringify(state), final);
      const committed = (await listPoints(services, context, { limit: 10 })).items;
      assert.equal(committed.length, state.status === 'succeeded' ? 1 : 0, state.status);
      assert.deepEqual(
        plane.logged.filter(({ level }) => level === 'error'),
        [],
      );
    }),
    { numRuns: 25, seed: 20_300_101 },
  );
});
