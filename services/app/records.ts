import type { z } from 'zod';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import type { Page, PageQuery } from '#contract/page.ts';
import type { JsonObject, Table, TableAction, TableItem, TableKey } from '#ports/table.ts';
import type { TenantContext } from './context.ts';

/** A record with the version that a conditional write names. */
export interface Versioned<T> {
  readonly value: T;
  readonly version: number;
}

/** One kind of thing of every tenant, parsed on the way in and out. */
export interface Records<T> {
  key(context: TenantContext, id: string): TableKey;
  /** `undefined` if the tenant has none under the id, whoever else may. */
  find(context: TenantContext, id: string): Promise<Versioned<T> | undefined>;
  /** Throws `not-found`. */
  get(context: TenantContext, id: string): Promise<Versioned<T>>;
  list(
    context: TenantContext,
    query: PageQuery,
    options?: { newestFirst?: boolean; prefix?: string },
  ): Promise<Page<T>>;
  /**
   * Makes the record exist together with the other actions, in one transaction. If it is there already, answers
   * what is there: ids are never guessed twice, so it is this very creation, repeated after a crash.
   */
  create(context: TenantContext, id: string, value: T, others?: readonly TableAction[]): Promise<T>;
  /** Actions for a transaction: `insert` wants no item there, `replace` wants the version that was read. */
  insert(context: TenantContext, id: string, value: T): TableAction;
  replace(context: TenantContext, id: string, value: T, version: number): TableAction;
  remove(context: TenantContext, id: string, version?: number): TableAction;
}

/**
 * The records of one kind. The partition begins with the tenant's id, which is what the cloud's
 * permissions narrow a handler to.
 *
 * @param noun  what a person calls one, for the message of `not-found`
 */
export function records<S extends z.ZodType>(
  table: Table,
  name: string,
  noun: string,
  schema: S,
): Records<z.output<S>> {
  type T = z.output<S>;
  const partition = (context: TenantContext) => `${context.tenant}#${name}`;
  const key = (context: TenantContext, id: string) => ({ partition: partition(context), sort: id });
  const parse = (item: TableItem): Versioned<T> => ({ value: schema.parse(item.value), version: item.version });
  const insert = (context: TenantContext, id: string, value: T): TableAction => ({
    put: key(context, id),
    value: toItem(schema.parse(value)),
    ifAbsent: true,
  });
  const find = async (context: TenantContext, id: string) => {
    const item = await table.get(key(context, id));
    return item === undefined ? undefined : parse(item);
  };
  return {
    key,
    find,
    async get(context, id) {
      const found = await find(context, id);
      if (found === undefined) throw new HoldfastError('not-found', `There is no ${noun} ${id}`);
      return found;
    },
    async create(context, id, value, others = []) {
      try {
        await table.transact([insert(context, id, value), ...others]);
        return value;
      } catch (error) {
        const existing = isHoldfastError(error, 'conflict') ? await find(context, id) : undefined;
        if (existing === undefined) throw error;
        return existing.value;
      }
    },
    async list(context, query, options = {}) {
      const page = await table.query(partition(context), {
        limit: query.limit,
        reverse: options.newestFirst ?? false,
        ...(options.prefix === undefined ? {} : { prefix: options.prefix }),
        ...(query.cursor === undefined ? {} : { cursor: openCursor(name, query.cursor) }),
      });
      return {
        items: page.items.map((item) => parse(item).value),
        ...(page.next === undefined ? {} : { next: sealCursor(name, page.next) }),
      };
    },
    insert,
    replace: (context, id, value, version) => ({
      put: key(context, id),
      value: toItem(schema.parse(value)),
      ifVersion: version,
    }),
    remove: (context, id, version) => ({
      delete: key(context, id),
      ...(version === undefined ? {} : { ifVersion: version }),
    }),
  };
}

/** A value as the Table stores it: plain JSON without undefined members. */
export function toItem(value: unknown): JsonObject {
  return JSON.parse(JSON.stringify(value));
}

/** Awaits a write with `ifAbsent`; false if the item was there already. */
export async function unlessThere(write: Promise<unknown>): Promise<boolean> {
  try {
    await write;
    return true;
  } catch (error) {
    if (isHoldfastError(error, 'conflict')) return false;
    throw error;
  }
}

/** Times a change is tried again when somebody else was first. */
const CHANGE_ATTEMPTS = 12;

/**
 * Runs a read-change-write until no one else was first; throws the last `conflict` after 12 attempts.
 * A handful of writers meet at one item, so that each round at least one of them gets through.
 */
export async function changing<T>(attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      if (!isHoldfastError(error, 'conflict') || tries === CHANGE_ATTEMPTS) throw error;
    }
  }
}

function sealCursor(name: string, next: string): string {
  return Buffer.from(JSON.stringify([name, next])).toString('base64url');
}

function openCursor(name: string, cursor: string): string {
  try {
    const [of, next] = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
    if (of === name && typeof next === 'string') return next;
  } catch {
    // Falls through: whatever it is, it is no cursor of ours.
  }
  throw new HoldfastError('usage', 'The cursor is not one of this list', {
    remedy: 'Pass the "next" of the page before, unchanged, with the same list',
  });
}
