import type { Json, JsonObject } from '#ports/table.ts';
import type { Template } from '#workflows/asl.ts';
import { TaskError } from './task-error.ts';

/** What one value of a path is, or `undefined` if there is none. Paths are checked by services/workflows/asl.ts. */
export function find(path: string, data: Json): Json | undefined {
  let at: Json | undefined = data;
  for (const [, field, index] of path.matchAll(/\.([^.[]+)|\[(\d+)\]/g)) {
    if (at === undefined || at === null || typeof at !== 'object') return undefined;
    if (index !== undefined) at = Array.isArray(at) ? (at as readonly Json[])[Number(index)] : undefined;
    else at = !Array.isArray(at) && Object.hasOwn(at, field!) ? (at as JsonObject)[field!] : undefined;
  }
  return at;
}

/** The value at the path. Throws `States.ParameterPathFailure` if there is none. */
export function need(path: string, data: Json): Json {
  const value = find(path, data);
  if (value === undefined) throw new TaskError('States.ParameterPathFailure', `The input has nothing at ${path}`);
  return value;
}

/** InputPath or OutputPath: all of the data by default, nothing but `{}` for `null`. */
export function select(path: string | null | undefined, data: Json): Json {
  if (path === null) return {};
  return path === undefined ? data : need(path, data);
}

/**
 * ResultPath: the input with the result put at the path; the result alone by default, the input alone for `null`.
 * Throws `States.ResultPathMatchFailure` where something other than an object is in the way.
 */
export function place(path: string | null | undefined, input: Json, result: Json): Json {
  if (path === null) return input;
  const names = (path ?? '$').split('.').slice(1);
  const put = (at: Json | undefined, depth: number): Json => {
    if (depth === names.length) return result;
    if (at !== undefined && (at === null || typeof at !== 'object' || Array.isArray(at))) {
      throw new TaskError('States.ResultPathMatchFailure', `${path} leads through something that is no object`);
    }
    const name = names[depth]!;
    const inner = at !== undefined && Object.hasOwn(at, name) ? (at as JsonObject)[name] : undefined;
    return fromEntries([...Object.entries(at ?? {}).filter(([key]) => key !== name), [name, put(inner, depth + 1)]]);
  };
  return put(input, 0);
}

/** Fills a template from the input (`$`) and the context (`$$`). */
export function fill(template: Template, input: Json, context: JsonObject): Json {
  if (template === null || typeof template !== 'object') return template;
  if (Array.isArray(template)) return template.map((item) => fill(item, input, context));
  return fromEntries(
    Object.entries(template).map(([name, value]) => {
      if (!name.endsWith('.$')) return [name, fill(value, input, context)];
      const path = value as string; // the schema allows nothing else here
      const isContext = path.startsWith('$$');
      return [name.slice(0, -2), need(isContext ? path.slice(1) : path, isContext ? context : input)];
    }),
  );
}

/** Object.fromEntries makes own fields of any name, `__proto__` too, so that data can't reach a prototype. */
function fromEntries(entries: [string, Json][]): JsonObject {
  return Object.fromEntries(entries) as JsonObject;
}
