import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { isHoldfastError } from '#contract/errors.ts';
import { WORKFLOW_PAYLOAD_MAX_BYTES } from '#contract/limits.ts';
import type { Json, JsonObject } from '#ports/table.ts';
import type { WorkflowState, Workflows } from '#ports/workflows.ts';
import type { ManualClock } from './manual-clock.ts';
import { TEST_MACHINES } from './workflow-machines.ts';

/** Does the work of tasks in these tests: what it answers is the task's output, what it throws fails it. */
export type TestHandler = (resource: string, input: JsonObject, token: string | undefined) => Promise<Json | undefined>;

export interface WorkflowsFixture {
  readonly workflows: Workflows;
  /** The clock that waits and time-outs go by; absent where the store's own time does. */
  readonly clock?: ManualClock;
  dispose(): Promise<void>;
}

const failsWith = (code: Parameters<typeof isHoldfastError>[1]) => (error: unknown) => isHoldfastError(error, code);
const named = (name: string, message = name) => Object.assign(new Error(message), { name });

/** What every adapter of the Workflows port must do. `make` is given the handler of all tasks. */
export function workflowsConformance(
  name: string,
  make: (machines: typeof TEST_MACHINES, handler: TestHandler) => Promise<WorkflowsFixture>,
): void {
  describe(`${name} keeps the promises of Workflows`, () => {
    let fixture: WorkflowsFixture;
    let workflows: Workflows;
    /** What `ask` was given, by the input's `id`. */
    const asked = new Map<string, string>();
    const calls = new Map<string, number>();
    const items = { now: 0, most: 0 };

    const handler: TestHandler = async (resource, input, token) => {
      const id = String((input as { id?: Json } | null)?.id ?? '');
      calls.set(id, (calls.get(id) ?? 0) + 1);
      switch (resource) {
        case 'echo':
          return input;
        case 'double':
          return 2 * (input as unknown as number);
        case 'throw':
          throw named(String(input.error), 'on purpose');
        case 'flaky':
          if (calls.get(id)! <= Number(input.failures)) throw named(String(input.error), 'not yet');
          return { calls: calls.get(id)! };
        case 'item': {
          items.most = Math.max(items.most, ++items.now);
          await pause(5);
          items.now--;
          if (input.value === 'bad') throw named('Item', 'a bad item');
          return input;
        }
        case 'ask.waitForTaskToken': {
          const inner = (input.input ?? input) as JsonObject;
          if (input.input !== undefined) assert.equal(input.token, token);
          if (inner.refuse) throw named('Refused', 'not even dispatched');
          asked.set(String(inner.id), token!);
          return { ignored: true };
        }
        default:
          return new Promise(() => {}); // hangs
      }
    };

    before(async () => {
      fixture = await make(TEST_MACHINES, handler);
      workflows = fixture.workflows;
    });
    after(() => fixture.dispose());

    const until = async <T>(what: string, look: () => T | undefined | Promise<T | undefined>): Promise<T> => {
      for (let attempt = 0; attempt < 1000; attempt++) {
        const found = await look();
        if (found !== undefined) return found;
        await pause(5);
      }
      assert.fail(`waited in vain for ${what}`);
    };
    const ended = (execution: string): Promise<WorkflowState> =>
      until(`the end of ${execution}`, async () => {
        const state = await workflows.describe(execution);
        return state?.status === 'running' ? undefined : state;
      });
    const run = async (machineName: string, execution: string, input: JsonObject): Promise<WorkflowState> => {
      await workflows.start(machineName, execution, input);
      return ended(execution);
    };
    const outputOf = async (machineName: string, execution: string, input: JsonObject): Promise<JsonObject> => {
      const state = await run(machineName, execution, input);
      assert.equal(state.status, 'succeeded', JSON.stringify(state));
      return (state as { output: JsonObject }).output;
    };
    const tokenFor = (id: string) => until(`a token for ${id}`, () => asked.get(id));
    const settled = (what: string, look: () => boolean) => until(what, () => look() || undefined);

    it('runs a task and answers its output', async () => {
      assert.deepEqual(await run('echo', 'echo-1', { a: [1, null, 'é'] }), {
        status: 'succeeded',
        output: { a: [1, null, 'é'] },
      });
      assert.equal(await workflows.describe('echo-absent'), undefined);
    });

    it('starts once under a name: again with the same input is the same, with another an error', async () => {
      await Promise.all([
        workflows.start('echo', 'once', { id: 'once', b: { x: 1, y: 2 } }),
        workflows.start('echo', 'once', { b: { y: 2, x: 1 }, id: 'once' }),
      ]);
      await ended('once');
      await workflows.start('echo', 'once', { id: 'once', b: { x: 1, y: 2 } });
      assert.equal(calls.get('once'), 1);
      await assert.rejects(workflows.start('echo', 'once', { id: 'other' }), failsWith('exists'));
      await assert.rejects(workflows.start('failing', 'once', { id: 'once', b: { x: 1, y: 2 } }), failsWith('exists'));
    });

    it('refuses an unknown machine, a bad name and an input over 256 KiB', async () => {
      await assert.rejects(workflows.start('absent', 'a', {}), failsWith('not-found'));
      for (const bad of ['', 'with space', 'x'.repeat(81)]) {
        await assert.rejects(workflows.start('echo', bad, {}), failsWith('usage'));
      }
      const tooMuch = { text: 'x'.repeat(WORKFLOW_PAYLOAD_MAX_BYTES) };
      await assert.rejects(workflows.start('echo', 'large', tooMuch), failsWith('limit'));
    });

    it('shapes inputs and results by InputPath, Parameters and ResultPath', async () => {
      const input = { a: { list: [{ n: 1 }, { n: 2 }] }, b: 'kept' };
      assert.deepEqual(await outputOf('shaping', 'shaping-1', input), {
        ...input,
        out: { first: { fixed: [1, { x: true }], taken: 2, who: 'shaping-1' } },
        pass: { made: 1 },
        copied: { copy: 1 },
      });
    });

    it('chooses by one field', async () => {
      const cases: [Json, string][] = [
        ['text', 'Text'],
        [10, 'Many'],
        [9, 'Other'],
        [true, 'Yes'],
        [null, 'Null'],
        ['10', 'Other'],
      ];
      for (const [index, [kind, expected]] of cases.entries()) {
        assert.deepEqual(await outputOf('choice', `choice-${index}`, { kind }), { name: expected });
      }
      const none = await run('noDefault', 'choice-none', { kind: 'y' });
      assert.equal((none as { error: string }).error, 'States.NoChoiceMatched');
      const absent = await run('choice', 'choice-absent', {});
      assert.equal((absent as { error: string }).error, 'States.Runtime');
    });

    it('fails with the error and cause of a Fail state or of an uncaught failure', async () => {
      const failed = await run('failing', 'fail-1', {});
      assert.deepEqual(failed, { status: 'failed', error: 'Own.Error', cause: 'as asked' });
      const uncaught = await run('uncaught', 'fail-2', { error: 'Some.Error' });
      assert.deepEqual(uncaught, { status: 'failed', error: 'Some.Error', cause: 'on purpose' });
    });

    it('maps over items in order, some at a time, and gathers their results', async () => {
      const output = await outputOf('map', 'map-1', { items: ['a', 'b', 'c', 'd', 'e'], common: 7 });
      const expected = ['a', 'b', 'c', 'd', 'e'].map((value, index) => ({ value, index, common: 7 }));
      assert.deepEqual(output.results, expected);
      assert.equal(items.most, 2);
      assert.deepEqual((await outputOf('map', 'map-2', { items: [], common: 7 })).results, []);
    });

    it('fails a Map when an item fails, and can catch that', async () => {
      const output = await outputOf('map', 'map-3', { items: ['a', 'bad', 'c', 'd'], common: 0 });
      assert.deepEqual(output.error, { Error: 'Item', Cause: 'a bad item' });
      assert.equal(output.results, undefined);
      const wrong = await run('map', 'map-4', { items: 'none', common: 0 });
      assert.equal((wrong as { error: string }).error, 'States.Runtime');
    });

    it('runs branches in parallel, and a Map inside one', async () => {
      const output = await outputOf('parallel', 'parallel-1', { items: [1, 2, 3] });
      assert.deepEqual(output.both, [{ a: 1 }, [2, 4, 6]]);
    });

    it('waits for a token, and is spent when completed', async () => {
      await workflows.start('token', 'token-1', { id: 'token-1' });
      const token = await tokenFor('token-1');
      assert.deepEqual(await workflows.describe('token-1'), { status: 'running', state: 'Ask' });
      await workflows.heartbeat(token);
      await workflows.complete(token, { yes: true });
      assert.deepEqual(await ended('token-1'), {
        status: 'succeeded',
        output: { id: 'token-1', answer: { yes: true } },
      });
      await assert.rejects(workflows.complete(token, {}), failsWith('not-found'));
      await assert.rejects(workflows.fail(token, 'E', 'c'), failsWith('not-found'));
      await assert.rejects(workflows.heartbeat(token), failsWith('not-found'));
      await assert.rejects(workflows.complete('unknown', {}), failsWith('not-found'));
    });

    it('gives each task a token of its own', async () => {
      await workflows.start('twoTokens', 'two', {});
      const first = await tokenFor('two-a');
      await workflows.complete(first, {});
      const second = await tokenFor('two-b');
      assert.notEqual(first, second);
      await assert.rejects(workflows.complete(first, { wrong: true }), failsWith('not-found'));
      await workflows.complete(second, { right: true });
      assert.deepEqual(await ended('two'), { status: 'succeeded', output: { right: true } });
    });

    it('completes a token once, however many try at the same time', async () => {
      await workflows.start('token', 'token-2', { id: 'token-2' });
      const token = await tokenFor('token-2');
      const answers = await Promise.allSettled([1, 2, 3, 4].map((n) => workflows.complete(token, { n })));
      assert.equal(answers.filter((answer) => answer.status === 'fulfilled').length, 1);
    });

    it('fails a task by its token, or because its dispatch failed', async () => {
      await workflows.start('token', 'token-3', { id: 'token-3' });
      await workflows.fail(await tokenFor('token-3'), 'Refused', 'by the holder');
      const output = ((await ended('token-3')) as { output: JsonObject }).output;
      assert.deepEqual(output.refused, { Error: 'Refused', Cause: 'by the holder' });
      const other = await outputOf('token', 'token-4', { id: 'token-4', refuse: true });
      assert.deepEqual(other.refused, { Error: 'Refused', Cause: 'not even dispatched' });
    });

    it('refuses an output over 256 KiB and goes on waiting', async () => {
      await workflows.start('token', 'token-5', { id: 'token-5' });
      const token = await tokenFor('token-5');
      const tooMuch = { text: 'x'.repeat(WORKFLOW_PAYLOAD_MAX_BYTES) };
      await assert.rejects(workflows.complete(token, tooMuch), failsWith('limit'));
      await workflows.complete(token, {});
      assert.equal((await ended('token-5')).status, 'succeeded');
    });

    it('stops an execution for good', async () => {
      await workflows.start('token', 'stop-1', { id: 'stop-1' });
      const token = await tokenFor('stop-1');
      await workflows.stop('stop-1', 'no longer wanted');
      const state = await workflows.describe('stop-1');
      assert.deepEqual(state, { status: 'stopped', error: 'States.Stopped', cause: 'no longer wanted' });
      await assert.rejects(workflows.complete(token, {}), failsWith('not-found'));
      await workflows.stop('stop-1', 'again');
      assert.deepEqual(await workflows.describe('stop-1'), state);
      await assert.rejects(workflows.stop('stop-absent', ''), failsWith('not-found'));
    });

    it('ends an execution at the limit of its history, whatever it catches', async () => {
      const state = await run('crowd', 'crowd-1', { items: Array.from({ length: 13_000 }, () => 0) });
      assert.equal(state.status, 'failed');
      assert.match((state as { cause: string }).cause, /25000/);
    });

    describe('as time goes by', () => {
      let clock: ManualClock;
      before((t) => {
        if (fixture.clock === undefined)
          (t as unknown as { skip(why: string): void }).skip("the store's own time rules");
        else clock = fixture.clock;
      });
      /** Lets the interpreter act on where the clock stands. */
      const quiet = () => pause(30);

      it('retries with growing pauses up to a bound, by the error', async () => {
        await workflows.start('retrying', 'retry-1', { id: 'retry-1', failures: 3, error: 'throttled' });
        for (const [attempt, seconds] of [2, 6, 10].entries()) {
          await settled(`attempt ${attempt + 1}`, () => calls.get('retry-1') === attempt + 1);
          await quiet();
          clock.advance(seconds * 1000 - 1);
          await quiet();
          assert.equal(calls.get('retry-1'), attempt + 1, 'not too early');
          clock.advance(1);
        }
        assert.deepEqual(await ended('retry-1'), { status: 'succeeded', output: { calls: 4 } });
      });

      it('catches what is not retried, or no longer', async () => {
        const other = await outputOf('retrying', 'retry-2', { id: 'retry-2', failures: 9, error: 'Other' });
        assert.deepEqual(other.error, { Error: 'Other', Cause: 'not yet' });
        await workflows.start('retrying', 'retry-3', { id: 'retry-3', failures: 9, error: 'Odd' });
        for (let attempt = 1; attempt <= 3; attempt++) {
          await settled(`attempt ${attempt}`, () => calls.get('retry-3') === attempt);
          await quiet();
          clock.advance(10_000);
        }
        assert.equal((await ended('retry-3')).status, 'succeeded');
        assert.equal(calls.get('retry-3'), 4);
      });

      it('waits for seconds, or until a time', async () => {
        const at = new Date(clock.nowMs() + 60_000).toISOString();
        await workflows.start('waiting', 'wait-1', { seconds: 60 });
        await workflows.start('until', 'wait-2', { at });
        await quiet();
        clock.advance(59_999);
        await quiet();
        assert.equal((await workflows.describe('wait-1'))!.status, 'running');
        assert.equal((await workflows.describe('wait-2'))!.status, 'running');
        clock.advance(1);
        assert.equal((await ended('wait-1')).status, 'succeeded');
        assert.equal((await ended('wait-2')).status, 'succeeded');
        assert.equal((await run('waiting', 'wait-3', { seconds: 'soon' })).status, 'failed');
      });

      it('times out a task whose heartbeats stop, not one that keeps sending them', async () => {
        await workflows.start('timed', 'beat-1', { id: 'beat-1' });
        const token = await tokenFor('beat-1');
        await quiet();
        for (let beat = 0; beat < 5; beat++) {
          clock.advance(9_000);
          await workflows.heartbeat(token);
        }
        await quiet();
        assert.equal((await workflows.describe('beat-1'))!.status, 'running');
        clock.advance(10_000);
        assert.deepEqual(await ended('beat-1'), { status: 'succeeded', output: { why: 'silent' } });
        await assert.rejects(workflows.heartbeat(token), failsWith('not-found'));
      });

      it('times out a task that sends heartbeats for ever', async () => {
        await workflows.start('timed', 'beat-2', { id: 'beat-2' });
        const token = await tokenFor('beat-2');
        await quiet();
        for (let beat = 0; beat < 11; beat++) {
          clock.advance(9_000);
          await workflows.heartbeat(token);
        }
        clock.advance(1_000);
        assert.deepEqual(await ended('beat-2'), { status: 'succeeded', output: { why: 'late' } });
      });

      it('times out a task that hangs, and a whole execution', async () => {
        await workflows.start('slow', 'slow-1', { id: 'slow-1' });
        await settled('the task', () => calls.get('slow-1') === 1);
        await quiet();
        clock.advance(5_000);
        const slow = await ended('slow-1');
        assert.deepEqual([slow.status, (slow as { error: string }).error], ['failed', 'States.Timeout']);
        await workflows.start('bounded', 'slow-2', { id: 'slow-2' });
        await quiet();
        clock.advance(50_000);
        const bounded = await ended('slow-2');
        assert.deepEqual([bounded.status, (bounded as { error: string }).error], ['timed-out', 'States.Timeout']);
      });
    });
  });
}
