import { createCipheriv, createHash } from 'node:crypto';
import type { Random } from '#ports/random.ts';

/** Reproducible randomness: the same seed gives the same bytes on every run and every machine. */
export function seededRandom(seed: string): Random {
  const key = createHash('sha256').update(seed).digest();
  const stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  const bytes = (length: number) => new Uint8Array(stream.update(Buffer.alloc(length)));
  return {
    bytes,
    fraction: () => Buffer.from(bytes(6)).readUIntBE(0, 6) / 2 ** 48,
  };
}
