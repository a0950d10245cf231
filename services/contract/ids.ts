/** Ids: a prefix that names the kind, then a ULID (sortable by time, 26 characters of Crockford base 32). */

import { z } from 'zod';

/** Prefix of each kind of thing; the list of names is part of the API. */
export const ID_PREFIXES = {
  tenant: 'tnt',
  site: 'sit',
  proxy: 'pxy',
  source: 'src',
  machine: 'vm',
  policy: 'pol',
  run: 'run',
  job: 'job',
  vault: 'vlt',
  point: 'pnt',
  proof: 'prf',
  key: 'key',
  webhook: 'whk',
  event: 'evt',
  session: 'ses',
  token: 'tok',
} as const;

export type IdKind = keyof typeof ID_PREFIXES;
/** An id of one kind, such as `Id<'machine'>` = `vm_01J…`. */
export type Id<K extends IdKind> = `${(typeof ID_PREFIXES)[K]}_${string}`;

const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
const BODY = '[0-9A-HJKMNP-TV-Z]{26}';

/** The zod schema of an id of the given kind. */
export function idSchema<K extends IdKind>(kind: K): z.ZodType<Id<K>> {
  const pattern = new RegExp(`^${ID_PREFIXES[kind]}_${BODY}$`);
  return z.string().regex(pattern, `must be a ${kind} id`) as unknown as z.ZodType<Id<K>>;
}

/** True if the text is an id of the kind. */
export function isId<K extends IdKind>(kind: K, text: string): text is Id<K> {
  return new RegExp(`^${ID_PREFIXES[kind]}_${BODY}$`).test(text);
}

/** 16 bytes as 26 characters of Crockford base 32, most significant first. */
export function crockford(bytes: Uint8Array): string {
  if (bytes.length !== 16) throw new RangeError(`an id body takes 16 bytes, not ${bytes.length}`);
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  let text = '';
  for (let i = 0; i < 26; i++) {
    text = ALPHABET[Number(value & 31n)] + text;
    value >>= 5n;
  }
  return text;
}

/** Milliseconds since 1970 of which an id was made by {@link makeId}. */
export function timeOfId(id: Id<IdKind>): number {
  const start = id.indexOf('_') + 1;
  let value = 0; // ten digits are 50 bits, of which the first two are 0
  for (const digit of id.slice(start, start + 10)) value = value * 32 + ALPHABET.indexOf(digit);
  return value;
}

/**
 * A new id: 48 bits of time and 80 random bits.
 *
 * @param nowMs  milliseconds since 1970, from the caller's Clock
 * @param random  10 random bytes, from the caller's Random
 */
export function makeId<K extends IdKind>(kind: K, nowMs: number, random: Uint8Array): Id<K> {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, Math.floor(nowMs / 2 ** 32));
  view.setUint32(2, nowMs % 2 ** 32);
  bytes.set(random.subarray(0, 10), 6);
  return `${ID_PREFIXES[kind]}_${crockford(bytes)}` as Id<K>;
}
