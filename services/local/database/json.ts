import { HoldfastError } from '#contract/errors.ts';
import type { Json, JsonObject } from '#ports/table.ts';

/** As deep as DynamoDB nests. */
const DEPTH_MAX = 32;

/**
 * The value as JSON text. Throws `usage` for what JSON would drop or change silently (undefined, NaN,
 * dates, functions, class instances), so that what is read back is exactly what was written.
 */
export function encodeJson(value: JsonObject): string {
  if (!isPlainObject(value)) throw notJson('', value);
  check(value, '', 1);
  return JSON.stringify(value);
}

/** Like {@link encodeJson}, for a value that need not be an object. */
export function encodeAnyJson(value: Json): string {
  check(value, '', 1);
  return JSON.stringify(value);
}

function check(value: unknown, path: string, depth: number): void {
  switch (typeof value) {
    case 'string':
      if (!value.isWellFormed()) throw notJson(path, value);
      return;
    case 'boolean':
      return;
    case 'number':
      if (!Number.isFinite(value)) throw notJson(path, value);
      return;
    case 'object':
      if (value === null) return;
      if (depth > DEPTH_MAX) throw new HoldfastError('limit', `A value may nest ${DEPTH_MAX} levels deep`);
      if (Array.isArray(value)) {
        // Not forEach, which would skip holes.
        for (let i = 0; i < value.length; i++) check(value[i], `${path}[${i}]`, depth + 1);
        return;
      }
      if (!isPlainObject(value)) throw notJson(path, value);
      for (const name of Object.keys(value)) {
        if (!name.isWellFormed()) throw notJson(`${path}.${name}`, name);
        check(value[name], `${path}.${name}`, depth + 1);
      }
      return;
    default:
      throw notJson(path, value);
  }
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function notJson(path: string, value: unknown): HoldfastError {
  const what = typeof value === 'object' && value !== null ? value.constructor?.name : String(typeof value);
  return new HoldfastError('usage', `Not a plain JSON value${path === '' ? '' : ` at ${path}`}: ${what}`, {
    remedy: 'Store strings, finite numbers, booleans, null, arrays and plain objects; leave absent fields out.',
  });
}
