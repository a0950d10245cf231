import { createHash, timingSafeEqual } from 'node:crypto';
import type { Random } from '#ports/random.ts';

/** A bearer secret: `<prefix>.<id>.<43 characters>`; the id finds its record, the rest proves possession. */
export interface Bearer {
  readonly text: string;
  readonly hash: string;
}

/** Makes a secret of 256 random bits for the id. Only the hash is to be stored. */
export function makeBearer(prefix: string, id: string, random: Random): Bearer {
  const secret = Buffer.from(random.bytes(32)).toString('base64url');
  return { text: `${prefix}.${id}.${secret}`, hash: hashSecret(secret) };
}

/** Splits a presented secret; `undefined` if it has not the form. */
export function parseBearer(prefix: string, text: string): { id: string; secret: string } | undefined {
  const parts = text.split('.');
  const [found, id, secret] = parts;
  if (parts.length !== 3 || found !== prefix || !id || secret?.length !== 43) return undefined;
  return { id, secret };
}

/** SHA-256 in hex: enough for secrets of 256 random bits, which need no slow hash. */
export function hashSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

/** Compares a presented secret with a stored hash in constant time. */
export function secretMatches(secret: string, hash: string): boolean {
  return timingSafeEqual(Buffer.from(hashSecret(secret), 'hex'), Buffer.from(hash, 'hex'));
}
