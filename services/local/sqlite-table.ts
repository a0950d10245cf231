import { createHash } from 'node:crypto';
import { HoldfastError } from '#contract/errors.ts';
import {
  TABLE_ITEM_MAX_BYTES,
  TABLE_KEY_MAX_BYTES,
  TABLE_PAGE_MAX_BYTES,
  TABLE_TRANSACTION_MAX_ACTIONS,
  TABLE_TRANSACTION_MAX_BYTES,
} from '#contract/limits.ts';
import type { Clock } from '#ports/clock.ts';
import type {
  JsonObject,
  PutCondition,
  Table,
  TableAction,
  TableItem,
  TableKey,
  TablePage,
  TableRange,
} from '#ports/table.ts';
import type { Database } from './database/database.ts';
import { encodeJson } from './database/json.ts';
import { afterPrefix } from './database/order.ts';

const SCHEMA = `
CREATE TABLE IF NOT EXISTS items (
  partition TEXT NOT NULL, sort TEXT NOT NULL, value TEXT NOT NULL, version INTEGER NOT NULL, expires REAL,
  PRIMARY KEY (partition, sort)
) STRICT;
CREATE INDEX IF NOT EXISTS items_expiring ON items (expires) WHERE expires IS NOT NULL;
`;

const SELECT_RANGE = `SELECT sort, value, version, expires FROM items
  WHERE partition = ? AND sort >= ? AND sort < ? ORDER BY sort`;
/** To SQLite any blob is greater than any text. */
const AFTER_ALL_TEXT = new Uint8Array(0);

/** Expired items removed at most with one write; they are invisible long before. */
const SWEEP_MAX_ITEMS = 200;
const SWEEP_EVERY_MS = 60_000;

interface Row {
  readonly sort: string;
  readonly value: string;
  readonly version: number;
  readonly expires: number | null;
}

/** An action whose limits are checked and whose value is fixed as text, at the time it was asked for. */
type Prepared =
  | { readonly kind: 'put'; readonly key: TableKey; readonly text: string; readonly condition: PutCondition }
  | { readonly kind: 'delete' | 'check'; readonly key: TableKey; readonly condition: PutCondition };

/**
 * The Table port on SQLite. Puts of one turn of the event loop share one flush of the disk; each
 * caller's conditions are judged in order. DynamoDB's limits hold here too.
 */
export class SqliteTable implements Table {
  readonly #database: Database;
  readonly #clock: Clock;
  #sweptAtMs = Number.NEGATIVE_INFINITY;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
    database.define(SCHEMA);
  }

  async get(key: TableKey): Promise<TableItem | undefined> {
    checkKey(key);
    const row = this.#database.read(() => this.#find(key));
    return row && { key: { ...key }, value: JSON.parse(row.value), version: row.version };
  }

  async put(key: TableKey, value: JsonObject, options: PutCondition = {}): Promise<TableItem> {
    const put = preparePut(key, value, options);
    const version = await this.#database.write(() => {
      this.#sweep();
      const found = this.#find(key);
      if (!holds(options, found)) throw conflict(key, found);
      return this.#write(put, found);
    });
    return { key: { ...key }, value: JSON.parse(put.text), version };
  }

  async delete(key: TableKey, options: { readonly ifVersion?: number } = {}): Promise<void> {
    checkKey(key);
    await this.#database.write(() => {
      const found = this.#find(key);
      if (!holds(options, found)) throw conflict(key, found);
      this.#remove(key);
    });
  }

  async query(partition: string, range: TableRange = {}): Promise<TablePage> {
    checkKey({ partition, sort: '-' });
    const { limit = Number.POSITIVE_INFINITY, reverse = false } = range;
    if (limit !== Number.POSITIVE_INFINITY && (!Number.isSafeInteger(limit) || limit < 1)) {
      throw new HoldfastError('usage', `A page has at least one item, not ${limit}`);
    }
    const after = range.cursor === undefined ? undefined : openCursor(partition, range.cursor);
    return this.#database.read(() => {
      const items: TableItem[] = [];
      let sizeBytes = 0;
      let last: string | undefined;
      for (const row of this.#rows(partition, range, after, reverse)) {
        if (row.sort === after) continue;
        sizeBytes += itemBytes({ partition, sort: row.sort }, row.value);
        if (items.length === limit || (sizeBytes > TABLE_PAGE_MAX_BYTES && last !== undefined)) {
          return { items, next: makeCursor(partition, last!) };
        }
        last = row.sort;
        if (!this.#isExpired(row)) {
          items.push({ key: { partition, sort: row.sort }, value: JSON.parse(row.value), version: row.version });
        }
      }
      return { items };
    });
  }

  async transact(actions: readonly TableAction[]): Promise<void> {
    const prepared = prepareAll(actions);
    await this.#database.write(() => {
      // All conditions are judged before the first write, so that a refusal leaves nothing to undo.
      const found = prepared.map(({ key }) => this.#find(key));
      for (const [index, { key, condition }] of prepared.entries()) {
        if (!holds(condition, found[index])) throw conflict(key, found[index], index);
      }
      for (const [index, action] of prepared.entries()) {
        if (action.kind === 'put') this.#write(action, found[index]);
        if (action.kind === 'delete') this.#remove(action.key);
      }
    });
  }

  #find({ partition, sort }: TableKey): Row | undefined {
    const row = this.#database
      .statement('SELECT sort, value, version, expires FROM items WHERE partition = ? AND sort = ?')
      .get(partition, sort) as unknown as Row | undefined;
    return row === undefined || this.#isExpired(row) ? undefined : row;
  }

  #rows(partition: string, range: TableRange, after: string | undefined, reverse: boolean): Iterable<Row> {
    const from = [range.from, range.prefix, reverse ? undefined : after];
    const before = [range.before, range.prefix && afterPrefix(range.prefix), reverse ? after : undefined];
    return this.#database
      .statement(reverse ? `${SELECT_RANGE} DESC` : SELECT_RANGE)
      .iterate(
        partition,
        inOrder(from).at(-1) ?? '',
        inOrder(before)[0] ?? AFTER_ALL_TEXT,
      ) as Iterable<unknown> as Iterable<Row>;
  }

  #write({ key, text, condition }: Prepared & { kind: 'put' }, found: Row | undefined): number {
    const version = (found?.version ?? 0) + 1;
    this.#database
      .statement(`INSERT INTO items (partition, sort, value, version, expires) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET value = excluded.value, version = excluded.version, expires = excluded.expires`)
      .run(key.partition, key.sort, text, version, condition.expiresAtSeconds ?? null);
    return version;
  }

  #remove({ partition, sort }: TableKey): void {
    this.#database.statement('DELETE FROM items WHERE partition = ? AND sort = ?').run(partition, sort);
  }

  #isExpired(row: Row): boolean {
    return row.expires !== null && row.expires <= this.#clock.nowMs() / 1000;
  }

  /** Gives back the space of items long expired, a few with a put now and then. */
  #sweep(): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs - this.#sweptAtMs < SWEEP_EVERY_MS) return;
    const { changes } = this.#database
      .statement(
        `DELETE FROM items WHERE (partition, sort) IN
         (SELECT partition, sort FROM items WHERE expires IS NOT NULL AND expires <= ? LIMIT ${SWEEP_MAX_ITEMS})`,
      )
      .run(nowMs / 1000);
    if (changes < SWEEP_MAX_ITEMS) this.#sweptAtMs = nowMs;
  }
}

function holds(condition: PutCondition, found: Row | undefined): boolean {
  if (condition.ifAbsent && found !== undefined) return false;
  return condition.ifVersion === undefined || found?.version === condition.ifVersion;
}

function prepareAll(actions: readonly TableAction[]): Prepared[] {
  if (actions.length === 0) throw new HoldfastError('usage', 'A transaction needs at least one action');
  if (actions.length > TABLE_TRANSACTION_MAX_ACTIONS) {
    throw new HoldfastError('limit', `A transaction may have ${TABLE_TRANSACTION_MAX_ACTIONS} actions`, {
      data: { actions: actions.length },
    });
  }
  const keys = new Set<string>();
  let sizeBytes = 0;
  const prepared = actions.map((action): Prepared => {
    const one = prepareAction(action);
    keys.add(JSON.stringify([one.key.partition, one.key.sort]));
    sizeBytes += itemBytes(one.key, one.kind === 'put' ? one.text : '');
    return one;
  });
  if (keys.size !== actions.length) throw new HoldfastError('usage', 'A transaction names an item twice');
  if (sizeBytes > TABLE_TRANSACTION_MAX_BYTES) {
    throw new HoldfastError('limit', `A transaction may have ${TABLE_TRANSACTION_MAX_BYTES} bytes`, {
      data: { sizeBytes },
    });
  }
  return prepared;
}

function prepareAction(action: TableAction): Prepared {
  if ('put' in action) return preparePut(action.put, action.value, action);
  const kind = 'delete' in action ? 'delete' : 'check';
  const key = 'delete' in action ? action.delete : action.check;
  checkKey(key);
  checkCondition(action);
  return { kind, key, condition: action };
}

function preparePut(key: TableKey, value: JsonObject, condition: PutCondition): Prepared & { kind: 'put' } {
  checkKey(key);
  checkCondition(condition);
  const text = encodeJson(value);
  if (itemBytes(key, text) > TABLE_ITEM_MAX_BYTES) {
    throw new HoldfastError('limit', `An item may have ${TABLE_ITEM_MAX_BYTES} bytes`, {
      data: { ...key, sizeBytes: itemBytes(key, text) },
      remedy: 'Keep large content in an object and its key in the item.',
    });
  }
  return { kind: 'put', key: { ...key }, text, condition: { ...condition } };
}

function checkCondition({ ifAbsent, ifVersion, expiresAtSeconds }: PutCondition): void {
  if (ifAbsent && ifVersion !== undefined) {
    throw new HoldfastError('usage', 'A condition is either ifAbsent or ifVersion');
  }
  if (expiresAtSeconds !== undefined && !Number.isFinite(expiresAtSeconds)) {
    throw new HoldfastError('usage', `Not a time to expire at: ${expiresAtSeconds}`);
  }
}

function checkKey({ partition, sort }: TableKey): void {
  for (const part of [partition, sort]) {
    if (part === '' || !part.isWellFormed() || part.includes('\0')) {
      throw new HoldfastError('usage', 'A key is a text that is not empty and holds no NUL', {
        data: { partition, sort },
      });
    }
    if (Buffer.byteLength(part) > TABLE_KEY_MAX_BYTES) {
      throw new HoldfastError('limit', `Each part of a key may have ${TABLE_KEY_MAX_BYTES} bytes`);
    }
  }
}

function itemBytes(key: TableKey, text: string): number {
  return Buffer.byteLength(key.partition) + Buffer.byteLength(key.sort) + Buffer.byteLength(text);
}

function conflict(key: TableKey, found: Row | undefined, index?: number): HoldfastError {
  const what = found === undefined ? 'does not exist' : `is at version ${found.version}`;
  return new HoldfastError('conflict', `The item ${key.partition} / ${key.sort} ${what}`, {
    data: { ...key, ...(index === undefined ? {} : { index }) },
    remedy: 'Read it again and decide anew.',
  });
}

/** The texts that are there, in the order of their bytes. */
function inOrder(texts: readonly (string | undefined)[]): string[] {
  return texts.filter((text) => text !== undefined).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

function makeCursor(partition: string, sort: string): string {
  return Buffer.from(JSON.stringify([seal(partition), sort])).toString('base64url');
}

function openCursor(partition: string, cursor: string): string {
  try {
    const [sealed, sort] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown[];
    if (sealed === seal(partition) && typeof sort === 'string') return sort;
  } catch {
    // falls through: any text that is no cursor is the caller's mistake
  }
  throw new HoldfastError('usage', 'Not a cursor of this list', { remedy: 'Start from the first page.' });
}

/** Ties a cursor to its partition without naming the partition to whoever holds the cursor. */
function seal(partition: string): string {
  return createHash('sha256').update(partition).digest('base64url').slice(0, 12);
}
