import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { isHoldfastError } from '#contract/errors.ts';
import { QUEUE_DELAY_MAX_SECONDS, QUEUE_MESSAGE_MAX_BYTES, QUEUE_RECEIVE_MAX_MESSAGES } from '#contract/limits.ts';
import type { Queue, QueueMessage } from '#ports/queue.ts';
import type { ManualClock } from './manual-clock.ts';

export interface QueueFixture {
  readonly queue: Queue;
  /** The clock the queue lives by; absent where the store's own time rules, and then nothing that takes time is tested. */
  readonly clock?: ManualClock;
  dispose(): Promise<void>;
}

const failsWith = (code: Parameters<typeof isHoldfastError>[1]) => (error: unknown) => isHoldfastError(error, code);
const HIDE = { visibilitySeconds: 30 };

/** What every adapter of the Queue port must do. `make` gives empty queues. */
export function queueConformance(name: string, make: () => Promise<QueueFixture>): void {
  describe(`${name} keeps the promises of Queue`, () => {
    let fixture: QueueFixture;
    let queue: Queue;
    before(async () => {
      fixture = await make();
      queue = fixture.queue;
    });
    after(() => fixture.dispose());

    const drain = async (name: string): Promise<QueueMessage[]> => {
      const messages: QueueMessage[] = [];
      for (;;) {
        const some = await queue.receive(name, { ...HIDE, max: QUEUE_RECEIVE_MAX_MESSAGES });
        if (some.length === 0) return messages;
        messages.push(...some);
      }
    };

    it('delivers each message sent, to its own queue', async () => {
      await queue.send('q/one', 'é\u{1f600}\n"');
      await queue.send('q/two', 'other');
      const [message, ...rest] = await queue.receive('q/one', { ...HIDE, max: 10 });
      assert.equal(message!.body, 'é\u{1f600}\n"');
      assert.equal(message!.deliveries, 1);
      assert.deepEqual(rest, []);
      assert.deepEqual(await queue.receive('q/empty', HIDE), []);
    });

    it('gives at most what is asked for', async () => {
      await Promise.all(Array.from({ length: 25 }, (_, i) => queue.send('q/max', `${i}`)));
      assert.equal((await queue.receive('q/max', HIDE)).length, 1);
      assert.equal((await queue.receive('q/max', { ...HIDE, max: 10 })).length, 10);
      assert.equal((await drain('q/max')).length, 14);
    });

    it('gives no visible message to two receivers', async () => {
      await Promise.all(Array.from({ length: 60 }, (_, i) => queue.send('q/race', `${i}`)));
      const answers = await Promise.all(Array.from({ length: 30 }, () => queue.receive('q/race', { ...HIDE, max: 3 })));
      const bodies = answers.flat().map((message) => message.body);
      assert.equal(new Set(bodies).size, bodies.length);
      assert.equal(bodies.length, 60);
    });

    it('removes a message for good when it is acknowledged, and ignores unknown receipts', async () => {
      await queue.send('q/ack', 'a');
      const [message] = await queue.receive('q/ack', HIDE);
      await queue.ack('q/other', message!.receipt);
      await queue.ack('q/ack', message!.receipt);
      await queue.ack('q/ack', message!.receipt);
      await queue.ack('q/ack', 'unknown');
      fixture.clock?.advance(31_000);
      assert.deepEqual(await queue.receive('q/ack', HIDE), []);
    });

    it('does not hold up a tenant behind the backlog of another', async () => {
      for (let i = 0; i < 40; i++) await queue.send('q/fair', `loud ${i}`, { group: 'tnt_loud' });
      await queue.send('q/fair', 'quiet', { group: 'tnt_quiet' });
      const first = await queue.receive('q/fair', { ...HIDE, max: 4 });
      assert.ok(first.some((message) => message.body === 'quiet'));
      assert.equal((await drain('q/fair')).length, 37);
      // One at a time too, wherever the names stand in the alphabet.
      for (let i = 0; i < 4; i++) await queue.send('q/turns', 'loud', { group: 'tnt_a' });
      for (let i = 0; i < 2; i++) await queue.send('q/turns', 'quiet', { group: 'tnt_b' });
      const bodies: string[] = [];
      for (let i = 0; i < 4; i++) bodies.push((await queue.receive('q/turns', HIDE))[0]!.body);
      assert.equal(bodies.filter((body) => body === 'quiet').length, 2);
    });

    it('holds its limits', async () => {
      await queue.send('q/limits', 'x'.repeat(QUEUE_MESSAGE_MAX_BYTES));
      await assert.rejects(queue.send('q/limits', 'x'.repeat(QUEUE_MESSAGE_MAX_BYTES + 1)), failsWith('limit'));
      await assert.rejects(queue.send('q/limits', 'é'.repeat(QUEUE_MESSAGE_MAX_BYTES / 2 + 1)), failsWith('limit'));
      await assert.rejects(queue.send('q/limits', ''), failsWith('usage'));
      const late = { delaySeconds: QUEUE_DELAY_MAX_SECONDS + 1 };
      await assert.rejects(queue.send('q/limits', 'x', late), failsWith('limit'));
      for (const options of [{ max: 0 }, { max: 11 }, { waitSeconds: 21 }, { visibilitySeconds: 43_201 }]) {
        await assert.rejects(queue.receive('q/limits', { ...HIDE, ...options }), failsWith('limit'));
      }
    });

    it('stops waiting when aborted', async () => {
      const abort = new AbortController();
      const waiting = queue.receive('q/abort', { ...HIDE, waitSeconds: 20, signal: abort.signal });
      await turn();
      abort.abort();
      await assert.rejects(waiting, failsWith('cancelled'));
    });

    it('wakes one who waits when a message is sent', async () => {
      const waiting = queue.receive('q/wake', { ...HIDE, waitSeconds: 20 });
      await turn();
      await queue.send('q/wake', 'come');
      assert.equal((await waiting)[0]!.body, 'come');
    });

    describe('as time goes by', () => {
      let clock: ManualClock;
      before((t) => {
        if (fixture.clock === undefined)
          (t as unknown as { skip(why: string): void }).skip("the store's own time rules");
        else clock = fixture.clock;
      });

      it('hides a received message for its visibility time, then delivers it again with a new receipt', async () => {
        await queue.send('q/hide', 'a');
        const [first] = await queue.receive('q/hide', { visibilitySeconds: 30 });
        clock.advance(29_000);
        assert.deepEqual(await queue.receive('q/hide', HIDE), []);
        clock.advance(1_000);
        const [second] = await queue.receive('q/hide', HIDE);
        assert.equal(second!.id, first!.id);
        assert.equal(second!.deliveries, 2);
        assert.notEqual(second!.receipt, first!.receipt);
        await queue.ack('q/hide', first!.receipt); // too late: it is another's now
        clock.advance(30_000);
        assert.equal((await queue.receive('q/hide', HIDE))[0]!.deliveries, 3);
      });

      it('acknowledges after the visibility time as long as nobody else has received it', async () => {
        await queue.send('q/late-ack', 'a');
        const [message] = await queue.receive('q/late-ack', HIDE);
        clock.advance(60_000);
        await queue.ack('q/late-ack', message!.receipt);
        assert.deepEqual(await queue.receive('q/late-ack', HIDE), []);
      });

      it('delays a message', async () => {
        await queue.send('q/delay', 'later', { delaySeconds: 10 });
        clock.advance(9_999);
        assert.deepEqual(await queue.receive('q/delay', HIDE), []);
        clock.advance(1);
        assert.equal((await queue.receive('q/delay', HIDE)).length, 1);
      });

      it('wakes one who waits when a hidden or delayed message shows', async () => {
        await queue.send('q/show', 'a', { delaySeconds: 5 });
        const before = clock.sleepers();
        const waiting = queue.receive('q/show', { ...HIDE, waitSeconds: 20 });
        while (clock.sleepers() === before) await turn();
        clock.advance(5_000);
        assert.equal((await waiting)[0]!.body, 'a');
      });

      it('answers nothing once the waiting time is over', async () => {
        const before = clock.sleepers();
        const waiting = queue.receive('q/nothing', { ...HIDE, waitSeconds: 20 });
        while (clock.sleepers() === before) await turn();
        clock.advance(20_000);
        assert.deepEqual(await waiting, []);
        assert.equal(clock.sleepers(), before);
      });

      it('forgets messages older than the retention of 14 days', async () => {
        await queue.send('q/old', 'old');
        clock.advance(14 * 24 * 3600 * 1000 + 1);
        await queue.send('q/old', 'new');
        assert.deepEqual(
          (await drain('q/old')).map((message) => message.body),
          ['new'],
        );
      });
    });
  });
}
