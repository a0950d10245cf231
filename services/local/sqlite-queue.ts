import { HoldfastError } from '#contract/errors.ts';
import {
  QUEUE_DELAY_MAX_SECONDS,
  QUEUE_MAX_WAITERS,
  QUEUE_MESSAGE_MAX_BYTES,
  QUEUE_NAME_MAX_BYTES,
  QUEUE_RECEIVE_MAX_MESSAGES,
  QUEUE_RETENTION_SECONDS,
  QUEUE_VISIBILITY_MAX_SECONDS,
  QUEUE_WAIT_MAX_SECONDS,
} from '#contract/limits.ts';
import type { Clock } from '#ports/clock.ts';
import type { Queue, QueueMessage, ReceiveOptions } from '#ports/queue.ts';
import type { Random } from '#ports/random.ts';
import type { Database } from './database/database.ts';

const SCHEMA = `
CREATE TABLE IF NOT EXISTS messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, grp TEXT NOT NULL, body TEXT NOT NULL,
  sent_ms REAL NOT NULL, visible_ms REAL NOT NULL, deliveries INTEGER NOT NULL, receipt TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS messages_by_group ON messages (queue, grp, visible_ms, id);
CREATE INDEX IF NOT EXISTS messages_by_time ON messages (queue, visible_ms, sent_ms);
CREATE INDEX IF NOT EXISTS messages_by_age ON messages (sent_ms);
CREATE UNIQUE INDEX IF NOT EXISTS messages_by_receipt ON messages (receipt) WHERE receipt IS NOT NULL;
CREATE TABLE IF NOT EXISTS message_groups (
  queue TEXT NOT NULL, grp TEXT NOT NULL, served INTEGER NOT NULL, PRIMARY KEY (queue, grp)
) STRICT;
CREATE INDEX IF NOT EXISTS message_groups_by_turn ON message_groups (queue, served, grp);
`;

/** Messages past retention removed with one send. */
const SWEEP_MAX_MESSAGES = 100;

interface Row {
  readonly id: number;
  readonly body: string;
  readonly deliveries: number;
}

/**
 * The Queue port on SQLite, in the same file as the Table or another. Groups take turns: the one that was served
 * longest ago comes first, so that a tenant with a thousand messages delays another's one by one message.
 * Long polls are woken by sends of this process and by the time at which the next hidden message shows.
 */
export class SqliteQueue implements Queue {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #random: Random;
  /** Who waits at which queue; an entry goes with its last waiter. */
  readonly #waiters = new Map<string, Set<AbortController>>();

  constructor(database: Database, clock: Clock, random: Random) {
    this.#database = database;
    this.#clock = clock;
    this.#random = random;
    database.define(SCHEMA);
  }

  async send(
    queue: string,
    body: string,
    options: { readonly group?: string; readonly delaySeconds?: number } = {},
  ): Promise<void> {
    const { group = '', delaySeconds = 0 } = options;
    checkName(queue);
    if (group !== '') checkName(group);
    checkSeconds('delay', delaySeconds, QUEUE_DELAY_MAX_SECONDS);
    if (body === '' || !body.isWellFormed()) {
      throw new HoldfastError('usage', 'A message is a well-formed text that is not empty');
    }
    if (Buffer.byteLength(body) > QUEUE_MESSAGE_MAX_BYTES) {
      throw new HoldfastError('limit', `A message may have ${QUEUE_MESSAGE_MAX_BYTES} bytes`, {
        remedy: 'Keep large content in an object and its key in the message.',
      });
    }
    await this.#database.write(() => {
      const nowMs = this.#clock.nowMs();
      this.#sweep(nowMs);
      this.#sql(
        'INSERT INTO messages (queue, grp, body, sent_ms, visible_ms, deliveries) VALUES (?, ?, ?, ?, ?, 0)',
      ).run(queue, group, body, nowMs, nowMs + delaySeconds * 1000);
      this.#sql('INSERT INTO message_groups (queue, grp, served) VALUES (?, ?, 0) ON CONFLICT DO NOTHING').run(
        queue,
        group,
      );
    });
    // Also for a delayed message: who waits must learn when to look next.
    for (const waiter of this.#waiters.get(queue) ?? []) waiter.abort();
  }

  async receive(queue: string, options: ReceiveOptions): Promise<readonly QueueMessage[]> {
    const { max = 1, waitSeconds = 0, visibilitySeconds, signal } = options;
    checkName(queue);
    if (!Number.isSafeInteger(max) || max < 1 || max > QUEUE_RECEIVE_MAX_MESSAGES) {
      throw new HoldfastError('limit', `1 to ${QUEUE_RECEIVE_MAX_MESSAGES} messages can be received at once`);
    }
    checkSeconds('wait', waitSeconds, QUEUE_WAIT_MAX_SECONDS);
    checkSeconds('visibility', visibilitySeconds, QUEUE_VISIBILITY_MAX_SECONDS);
    const deadlineMs = this.#clock.monotonicMs() + waitSeconds * 1000;
    for (;;) {
      if (signal?.aborted) throw new HoldfastError('cancelled', 'Receiving was cancelled', { cause: signal.reason });
      using bell = this.#bell(queue); // before looking, so that no send falls in between
      if (this.#database.read(() => this.#hasVisible(queue))) {
        const messages = await this.#database.write(() => this.#take(queue, max, visibilitySeconds));
        if (messages.length > 0) return messages;
      }
      const leftMs = deadlineMs - this.#clock.monotonicMs();
      if (leftMs <= 0) return [];
      const waitMs = Math.min(
        leftMs,
        this.#database.read(() => this.#untilVisibleMs(queue)),
      );
      const wake = signal === undefined ? bell.signal : AbortSignal.any([bell.signal, signal]);
      await this.#clock.sleep(waitMs, wake).catch((error: unknown) => {
        if (!wake.aborted) throw error;
      });
    }
  }

  async ack(queue: string, receipt: string): Promise<void> {
    checkName(queue);
    await this.#database.write(() => {
      const row = this.#sql('DELETE FROM messages WHERE receipt = ? AND queue = ? RETURNING grp').get(receipt, queue);
      if (row === undefined) return;
      this.#sql(
        `DELETE FROM message_groups WHERE queue = ?1 AND grp = ?2
         AND NOT EXISTS (SELECT 1 FROM messages WHERE queue = ?1 AND grp = ?2)`,
      ).run(queue, row.grp as string);
    });
  }

  /** Takes one message of each group in turn until there are enough or none. */
  #take(queue: string, max: number, visibilitySeconds: number): QueueMessage[] {
    const nowMs = this.#clock.nowMs();
    const taken: QueueMessage[] = [];
    for (let more = true; more && taken.length < max; ) {
      more = false;
      for (const group of this.#groupsInTurn(queue, nowMs, max - taken.length)) {
        const row = this.#sql(
          `SELECT id, body, deliveries FROM messages
           WHERE queue = ? AND grp = ? AND visible_ms <= ? AND sent_ms >= ? ORDER BY visible_ms, id LIMIT 1`,
        ).get(queue, group, nowMs, oldestMs(nowMs)) as unknown as Row;
        taken.push(this.#hand(row, nowMs + visibilitySeconds * 1000));
        this.#sql(
          `UPDATE message_groups SET served = 1 + (SELECT max(served) FROM message_groups WHERE queue = ?1)
           WHERE queue = ?1 AND grp = ?2`,
        ).run(queue, group);
        more = true;
      }
      // With no visibility time a message would be handed out again in the same answer.
      if (visibilitySeconds === 0) break;
    }
    return taken;
  }

  #groupsInTurn(queue: string, nowMs: number, max: number): string[] {
    const rows = this.#sql(
      `SELECT grp FROM message_groups AS g WHERE queue = ?1 AND EXISTS
       (SELECT 1 FROM messages AS m WHERE m.queue = ?1 AND m.grp = g.grp AND m.visible_ms <= ?2 AND m.sent_ms >= ?3)
       ORDER BY served, grp LIMIT ?4`,
    ).all(queue, nowMs, oldestMs(nowMs), max);
    return rows.map((row) => row.grp as string);
  }

  #hand(row: Row, visibleMs: number): QueueMessage {
    const receipt = Buffer.from(this.#random.bytes(16)).toString('hex');
    this.#sql('UPDATE messages SET visible_ms = ?, deliveries = deliveries + 1, receipt = ? WHERE id = ?').run(
      visibleMs,
      receipt,
      row.id,
    );
    return { id: `${row.id}`, body: row.body, receipt, deliveries: row.deliveries + 1 };
  }

  #hasVisible(queue: string): boolean {
    return this.#untilVisibleMs(queue) <= 0;
  }

  #untilVisibleMs(queue: string): number {
    const nowMs = this.#clock.nowMs();
    const row = this.#sql(
      'SELECT visible_ms FROM messages WHERE queue = ? AND sent_ms >= ? ORDER BY visible_ms LIMIT 1',
    ).get(queue, oldestMs(nowMs));
    return row === undefined ? Number.POSITIVE_INFINITY : (row.visible_ms as number) - nowMs;
  }

  /** Something that rings at the next send to the queue, until disposed. Throws `throttled` if too many wait. */
  #bell(queue: string): { readonly signal: AbortSignal } & Disposable {
    const waiters = this.#waiters.get(queue) ?? new Set();
    if (waiters.size >= QUEUE_MAX_WAITERS) {
      throw new HoldfastError('throttled', `${QUEUE_MAX_WAITERS} receivers wait at ${queue}`, { retryable: true });
    }
    const bell = new AbortController();
    waiters.add(bell);
    this.#waiters.set(queue, waiters);
    return {
      signal: bell.signal,
      [Symbol.dispose]: () => {
        waiters.delete(bell);
        if (waiters.size === 0 && this.#waiters.get(queue) === waiters) this.#waiters.delete(queue);
      },
    };
  }

  /** Gives back the space of messages past retention, a few at a time; receivers don't see them in any case. */
  #sweep(nowMs: number): void {
    const { changes } = this.#sql(
      `DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE sent_ms < ? LIMIT ${SWEEP_MAX_MESSAGES})`,
    ).run(oldestMs(nowMs));
    if (changes === 0) return;
    this.#sql(
      `DELETE FROM message_groups AS g
       WHERE NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.queue = g.queue AND m.grp = g.grp)`,
    ).run();
  }

  #sql(text: string) {
    return this.#database.statement(text);
  }
}

/** When the oldest message that still counts was sent. */
function oldestMs(nowMs: number): number {
  return nowMs - QUEUE_RETENTION_SECONDS * 1000;
}

function checkName(name: string): void {
  if (name === '' || !name.isWellFormed() || name.includes('\0') || Buffer.byteLength(name) > QUEUE_NAME_MAX_BYTES) {
    throw new HoldfastError('usage', `The name of a queue or group has 1 to ${QUEUE_NAME_MAX_BYTES} bytes and no NUL`);
  }
}

function checkSeconds(what: string, seconds: number, max: number): void {
  if (seconds >= 0 && seconds <= max) return;
  throw new HoldfastError('limit', `A ${what} takes 0 to ${max} seconds, not ${seconds}`);
}
