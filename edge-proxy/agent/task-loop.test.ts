import assert from 'node:assert/strict';
import test from 'node:test';
import { HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type { Outcome } from '#contract/jobs.ts';
import type { Task } from '#contract/proxy-protocol.ts';
import type { ControlPlane } from './control-plane.ts';
import { runTaskLoop } from './task-loop.ts';

const job = 'job_01JD0000000000000000000000' as Id<'job'>;
const outcome: Outcome = { kind: 'backup', point: 'pnt_01JD0000000000000000000000', disks: [], stats: {} };

function taskOf(receipt: string): Task {
  const machine = {
    id: 'vm_01JD0000000000000000000000',
    name: 'm',
    source: 'src_01JD0000000000000000000000',
    disks: [],
    createdAt: '',
  } as const;
  return {
    job,
    receipt,
    deliveries: 1,
    attempt: 1,
    work: { kind: 'backup', machine: machine.id },
    machine: { ...machine, disks: [] },
    vault: 'vlt_01JD0000000000000000000000',
    heartbeatSeconds: 0.01,
  };
}

/** A control plane that hands out what is put into it and writes down what it hears. */
function fakePlane() {
  const queue: (Task | Error)[] = [];
  const heard: { path: string; body: Record<string, unknown> }[] = [];
  let cancel = false;
  let waiting: (() => void) | undefined;
  const plane = {
    async post(path: string, body: Record<string, unknown>, _schema: unknown, options: { signal?: AbortSignal } = {}) {
      options.signal?.throwIfAborted();
      if (path.endsWith('/receive')) {
        if (queue.length === 0) {
          await new Promise<void>((resolve) => {
            waiting = resolve;
            options.signal?.addEventListener('abort', () => resolve());
          });
        }
        options.signal?.throwIfAborted();
        const next = queue.shift();
        if (next instanceof Error) throw next;
        return { tasks: next === undefined ? [] : [next] };
      }
      heard.push({ path, body });
      return path.endsWith('/progress') ? { cancel } : {};
    },
  } as unknown as ControlPlane;
  return {
    plane,
    heard,
    put(next: Task | Error) {
      queue.push(next);
      waiting?.();
    },
    cancelAll() {
      cancel = true;
    },
    told: (end: string) => heard.filter(({ path }) => path.endsWith(end)),
  };
}

const clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      const timer = setTimeout(resolve, Math.min(ms, 20));
      const abort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', abort, { once: true });
    }),
};

async function eventually(holds: () => boolean) {
  for (let i = 0; i < 2000 && !holds(); i++) await new Promise((resolve) => setTimeout(resolve, 2));
  assert.ok(holds());
}

function start(fake: ReturnType<typeof fakePlane>, perform: (signal: AbortSignal) => Promise<Outcome>, slots = 2) {
  const stop = new AbortController();
  const loop = runTaskLoop(
    {
      plane: fake.plane,
      clock,
      slots,
      version: '1',
      heartbeatSeconds: 1,
      perform: (_task, signal) => perform(signal),
      log: () => {},
    },
    stop.signal,
  );
  return {
    stop() {
      stop.abort(new Error('stopped'));
      return loop;
    },
  };
}

test('a job that is delivered again while it runs is done once, and every delivery is acknowledged', async () => {
  const fake = fakePlane();
  let runs = 0;
  let finish: (() => void) | undefined;
  const loop = start(fake, async () => {
    runs++;
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    return outcome;
  });
  fake.put(taskOf('r1'));
  await eventually(() => finish !== undefined);
  fake.put(taskOf('r2'));
  await eventually(() => fake.told('/progress').length > 2);
  finish!();
  await eventually(() => fake.told('/ack').length === 2);
  assert.equal(runs, 1);
  assert.deepEqual(
    fake.told('/ack').map(({ body }) => body.receipt),
    ['r1', 'r2'],
  );
  assert.deepEqual(
    fake.told('/complete').map(({ body }) => body),
    [{ outcome }],
  );
  await loop.stop();
});

test('a failure is reported with its code, remedy and facts', async () => {
  const fake = fakePlane();
  const loop = start(fake, async () => {
    throw new HoldfastError('unreadable', 'disk 0 cannot be read', { remedy: 'Check it', data: { offset: 4096 } });
  });
  fake.put(taskOf('r'));
  await eventually(() => fake.told('/ack').length === 1);
  const error = { code: 'unreadable', message: 'disk 0 cannot be read', remedy: 'Check it', data: { offset: 4096 } };
  assert.deepEqual(
    fake.told('/fail').map(({ body }) => body),
    [{ error }],
  );
  await loop.stop();
});

test('a job that is to stop is interrupted and reported as cancelled', async () => {
  const fake = fakePlane();
  const loop = start(
    fake,
    (signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
  );
  fake.put(taskOf('r'));
  await eventually(() => fake.told('/progress').length > 0);
  fake.cancelAll();
  await eventually(() => fake.told('/fail').length === 1);
  assert.equal((fake.told('/fail')[0]!.body.error as { code: string }).code, 'cancelled');
  await loop.stop();
});

test('a proxy that is stopped interrupts its jobs and reports nothing, so that they come again', async () => {
  const fake = fakePlane();
  let interrupted = false;
  const loop = start(
    fake,
    (signal) =>
      new Promise((_, reject) =>
        signal.addEventListener('abort', () => {
          interrupted = true;
          reject(signal.reason);
        }),
      ),
  );
  fake.put(taskOf('r'));
  await eventually(() => fake.told('/progress').length > 0);
  await loop.stop();
  assert.ok(interrupted);
  assert.deepEqual([...fake.told('/fail'), ...fake.told('/complete'), ...fake.told('/ack')], []);
});

test('an outage of the control plane is waited out', async () => {
  const fake = fakePlane();
  const loop = start(fake, async () => outcome);
  for (let i = 0; i < 3; i++) fake.put(new HoldfastError('store-failed', 'away', { retryable: true }));
  fake.put(taskOf('r'));
  await eventually(() => fake.told('/complete').length === 1);
  await loop.stop();
});

test('no more tasks are taken than there are slots', async () => {
  const fake = fakePlane();
  const finish: (() => void)[] = [];
  const loop = start(fake, () => new Promise((resolve) => finish.push(() => resolve(outcome))), 1);
  fake.put(taskOf('r1'));
  fake.put({ ...taskOf('r2'), job: 'job_01JD0000000000000000000001' });
  await eventually(() => finish.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(finish.length, 1);
  finish[0]!();
  await eventually(() => finish.length === 2);
  finish[1]!();
  await eventually(() => fake.told('/complete').length === 2);
  await loop.stop();
});
