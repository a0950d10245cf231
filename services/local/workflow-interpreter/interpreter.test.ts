import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { isHoldfastError } from '#contract/errors.ts';
import type { Clock } from '#ports/clock.ts';
import { type Machine, machineSchema } from '#workflows/asl.ts';
import { Database } from '../database/database.ts';
import { systemClock } from '../system-clock.ts';
import { systemRandom } from '../system-random.ts';
import { type TaskHandler, WorkflowInterpreter } from './interpreter.ts';

const single = (more: object) =>
  machineSchema.parse({ StartAt: 'A', States: { A: { Type: 'Task', Resource: 'a', End: true, ...more } } });

describe('The workflow interpreter', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-interpreter-'));
  });
  after(() => rm(folder, { recursive: true }));

  /** An interpreter on a database of that name, as after a restart if there was one before. */
  const open = async (name: string, machines: Record<string, Machine>, handler: TaskHandler, clock: Clock) => {
    const database = new Database(join(folder, name));
    const workflows = new WorkflowInterpreter({
      database,
      clock,
      random: systemRandom,
      machines,
      handler,
      concurrency: 2,
    });
    await workflows.resume();
    return {
      workflows,
      database,
      async close() {
        await workflows.close();
        database.close();
      },
    };
  };
  const until = async (what: string, holds: () => boolean | Promise<boolean>) => {
    for (let attempt = 0; attempt < 600; attempt++) {
      if (await holds()) return;
      await pause(5);
    }
    assert.fail(`waited in vain for ${what}`);
  };

  it('hands a task that was under way at the end of the process the same token again', async () => {
    const machines = { ask: single({ Resource: 'ask.waitForTaskToken' }) };
    const tokens: string[] = [];
    const hangs: TaskHandler = (_, __, token) => {
      tokens.push(token!);
      return new Promise(() => {});
    };
    const first = await open('token', machines, hangs, systemClock);
    await first.workflows.start('ask', 'one', {});
    await until('the dispatch', () => tokens.length === 1);
    await first.close();
    const second = await open('token', machines, hangs, systemClock);
    await until('the second dispatch', () => tokens.length === 2);
    assert.equal(tokens[0], tokens[1]);
    await second.workflows.complete(tokens[0]!, { done: true }); // the handler still hangs, and holds nothing up
    assert.deepEqual(await second.workflows.describe('one'), { status: 'succeeded', output: { done: true } });
    await second.close();
  });

  it('does not hold the time that it was away against heartbeats', async () => {
    const machines = { ask: single({ Resource: 'ask.waitForTaskToken', HeartbeatSeconds: 60 }) };
    let offsetMs = 0;
    const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + offsetMs };
    let token = '';
    const dispatch: TaskHandler = async (_, __, given) => {
      token = given!;
    };
    const first = await open('away', machines, dispatch, clock);
    await first.workflows.start('ask', 'one', {});
    await until('the dispatch', () => token !== '');
    await pause(20);
    await first.close();
    offsetMs = 3600_000;
    const second = await open('away', machines, dispatch, clock);
    await pause(20);
    assert.equal((await second.workflows.describe('one'))!.status, 'running');
    await second.workflows.complete(token, {});
    await second.close();
  });

  it('goes on with the definition that an execution was started with', async () => {
    const before = single({ Parameters: { made: 'before' } });
    const later = single({ Parameters: { made: 'later' } });
    let held = true;
    const handler: TaskHandler = (_, input) => (held ? new Promise(() => {}) : Promise.resolve(input));
    const first = await open('definition', { it: before }, handler, systemClock);
    await first.workflows.start('it', 'old', {});
    await pause(20);
    await first.close();
    held = false;
    const second = await open('definition', { it: later }, handler, systemClock);
    await second.workflows.start('it', 'new', {});
    for (const [name, made] of [
      ['old', 'before'],
      ['new', 'later'],
    ] as const) {
      await until(name, async () => (await second.workflows.describe(name))?.status !== 'running');
      assert.deepEqual(await second.workflows.describe(name), { status: 'succeeded', output: { made } });
    }
    await second.close();
  });

  it('aborts the handler of a stopped or timed-out task, and gives its slot to others', async () => {
    const aborted: string[] = [];
    const handler: TaskHandler = async (_, input, __, signal) => {
      const { who } = input as { who: string };
      if (who === 'quick') return {};
      return new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          aborted.push(who);
          if (who !== 'deaf') reject(signal.reason);
        });
      });
    };
    const { workflows, close } = await open('abort', { it: single({ TimeoutSeconds: 1 }) }, handler, systemClock);
    await workflows.start('it', 'stopped', { who: 'stopped' });
    await workflows.start('it', 'deaf', { who: 'deaf' });
    await pause(20);
    await workflows.start('it', 'quick', { who: 'quick' }); // both slots are taken
    await pause(20);
    assert.equal((await workflows.describe('quick'))!.status, 'running');
    await workflows.stop('stopped', 'enough');
    await until('the quick one', async () => (await workflows.describe('quick'))?.status === 'succeeded');
    await until('the time-out', async () => (await workflows.describe('deaf'))?.status === 'failed');
    assert.deepEqual(aborted, ['stopped', 'deaf']);
    await close();
  });

  it('fails a task whose answer is no JSON, and names ours by their code', async () => {
    const handler: TaskHandler = async () => ({ when: new Date(0) }) as never;
    const { workflows, close } = await open('json', { it: single({}) }, handler, systemClock);
    await workflows.start('it', 'one', {});
    await until('the end', async () => (await workflows.describe('one'))?.status === 'failed');
    const state = await workflows.describe('one');
    assert.equal((state as { error: string }).error, 'usage');
    await assert.rejects(workflows.start('__proto__', 'two', {}), (error) => isHoldfastError(error, 'not-found'));
    await close();
  });

  it('forgets executions 90 days after their end', async () => {
    let offsetMs = 0;
    const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + offsetMs };
    const { workflows, close } = await open('old', { it: single({}) }, async () => ({}), clock);
    await workflows.start('it', 'one', {});
    await until('the end', async () => (await workflows.describe('one'))?.status === 'succeeded');
    offsetMs = 91 * 24 * 3600_000;
    await workflows.start('it', 'two', {});
    assert.equal(await workflows.describe('one'), undefined);
    await close();
  });
});
