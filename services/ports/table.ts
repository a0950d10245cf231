/**
 * A key-value table of small items: partition key + sort key → JSON item with a version.
 *
 * Adapters: SQLite (services/local), DynamoDB (services/aws). Each passes test/conformance/table.ts
 * and enforces the limits in services/contract/limits.ts (`limit` errors), so that what works on a
 * laptop works in the cloud. Items are plain JSON values; callers parse them with zod both ways.
 */
export interface Table {
  get(key: TableKey): Promise<TableItem | undefined>;
  /** Writes one item; throws `conflict` if the condition does not hold. */
  put(key: TableKey, value: JsonObject, options?: PutCondition): Promise<TableItem>;
  /** Removes one item if it exists; throws `conflict` if `ifVersion` is given and does not match. */
  delete(key: TableKey, options?: { readonly ifVersion?: number }): Promise<void>;
  /** A page of one partition's items by ascending sort key (descending with `reverse`). */
  query(partition: string, range?: TableRange): Promise<TablePage>;
  /** All or nothing, at most 100 actions, no key twice; throws `conflict` naming the failed action's index in `data.index`. */
  transact(actions: readonly TableAction[]): Promise<void>;
}

export interface TableKey {
  readonly partition: string;
  readonly sort: string;
}

export type Json = string | number | boolean | null | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [name: string]: Json;
}

export interface TableItem {
  readonly key: TableKey;
  readonly value: JsonObject;
  /** 1 when first written, one more at each change. */
  readonly version: number;
}

export interface PutCondition {
  /** Only if there is no item under the key. */
  readonly ifAbsent?: boolean;
  /** Only if the item's version is this. */
  readonly ifVersion?: number;
  /** Seconds since 1970 after which the item no longer exists for any reader. */
  readonly expiresAtSeconds?: number;
}

export interface TableRange {
  /** Sort keys that start with this. */
  readonly prefix?: string;
  /** Sort keys ≥ this. */
  readonly from?: string;
  /** Sort keys < this. */
  readonly before?: string;
  readonly reverse?: boolean;
  readonly limit?: number;
  readonly cursor?: string;
}

export interface TablePage {
  readonly items: readonly TableItem[];
  readonly next?: string;
}

export type TableAction =
  | ({ readonly put: TableKey; readonly value: JsonObject } & PutCondition)
  | { readonly delete: TableKey; readonly ifVersion?: number }
  | { readonly check: TableKey; readonly ifVersion?: number; readonly ifAbsent?: boolean };
